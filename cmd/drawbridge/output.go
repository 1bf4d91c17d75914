package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
)

// A format is how a command writes its answer.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

// String, Set and Type make a format a flag.
func (f *format) String() string { return string(*f) }

func (f *format) Set(s string) error {
	switch v := format(strings.ToLower(s)); v {
	case formatTable, formatJSON, formatYAML:
		*f = v
		return nil
	}
	return fmt.Errorf("must be table, json or yaml")
}

func (f *format) Type() string { return "table|json|yaml" }

func formatFlag(cmd *cobra.Command) *format {
	f := formatTable
	cmd.Flags().VarP(&f, "output", "o", "how to write the answer")
	err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{string(formatTable), string(formatJSON), string(formatYAML)}, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // there is no such flag: a mistake of ours
	}
	return &f
}

// writeMessage writes m as JSON or YAML.
func writeMessage(w io.Writer, f format, m proto.Message) error {
	marshal := manifest.MarshalYAML
	if f == formatJSON {
		marshal = manifest.MarshalJSON
	}
	text, err := marshal(m)
	if err != nil {
		return err
	}
	if f == formatJSON {
		text = append(text, '\n')
	}
	_, err = w.Write(text)
	return err
}

// writeJSON writes v indented, HTML's characters as they are.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// A table is written in aligned columns.
type table struct {
	header []string
	rows   [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			cell = printable(cell)
			if cell == "" {
				cell = "-"
			}
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, cell)
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

// printable takes from text what would end a line or move the cursor. Parts of
// it may come from a peer.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '\uFFFD'
		}
		return r
	}, text)
}

// word returns an enum's value as people read it: PROTOCOL_HTTP is HTTP.
func word(v protoreflect.Enum) string {
	ev := v.Descriptor().Values().ByNumber(v.Number())
	if ev == nil {
		return fmt.Sprint(v.Number())
	}
	return strings.TrimPrefix(string(ev.Name()), manifest.EnumPrefix(v.Descriptor()))
}

func lower(v protoreflect.Enum) string { return strings.ToLower(word(v)) }

// few joins values, and counts those beyond three.
func few(values []string) string {
	const most = 3
	if len(values) > most {
		return fmt.Sprintf("%s +%d", strings.Join(values[:most], ","), len(values)-most)
	}
	return strings.Join(values, ",")
}
