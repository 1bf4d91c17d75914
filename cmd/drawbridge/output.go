package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
)

// A format is an output format.
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
	cmd.Flags().VarP(&f, "output", "o", "output format")
	err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{string(formatTable), string(formatJSON), string(formatYAML)}, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // no such flag: a programming error
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

// writeJSON writes v indented, without escaping HTML characters.
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

// write writes the rows with columns as wide as their widest cell. It pads before it
// adds colors, because those have no width on a terminal.
func (t *table) write(w io.Writer, p paint) error {
	const gap = 3
	all := append([][]string{t.header}, t.rows...)
	widths := make([]int, len(t.header))
	for _, row := range all {
		for i, cell := range row {
			if cell = printable(cell); cell == "" {
				cell = "-"
			}
			row[i] = cell
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out bytes.Buffer
	for n, row := range all {
		for i, cell := range row {
			space := widths[i] + gap - utf8.RuneCountInString(cell)
			if n > 0 {
				cell = p.cell(t.header[i], cell)
			}
			out.WriteString(cell)
			if i < len(row)-1 {
				out.WriteString(strings.Repeat(" ", space))
			}
		}
		out.WriteByte('\n')
	}
	_, err := w.Write(out.Bytes())
	return err
}

// table writes t to the standard output.
func (c *cli) table(t *table) error { return t.write(c.out, c.paint(c.out)) }

// printable removes characters that would end a line or move the cursor, because parts of
// text may come from a peer.
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

// word returns an enum's value without its prefix: PROTOCOL_HTTP is HTTP.
func word(v protoreflect.Enum) string {
	if v.Number() == 0 {
		return "UNSPECIFIED"
	}
	return enumWord(v.Descriptor(), v.Number())
}

func lower(v protoreflect.Enum) string { return strings.ToLower(word(v)) }

// few joins the first three values and counts the rest.
func few(values []string) string {
	const most = 3
	if len(values) > most {
		return fmt.Sprintf("%s +%d", strings.Join(values[:most], ","), len(values)-most)
	}
	return strings.Join(values, ",")
}
