// Package format writes API messages as JSON and YAML.
//
// A command adds the flag --output with Flag, which returns the Format that the user
// chooses. This package does not write the Format Table: package view builds the tables.
package format

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
)

// A Format is an output format.
type Format string

// The formats. Table is the default.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// String, Set and Type implement pflag.Value.
func (f *Format) String() string { return string(*f) }

func (f *Format) Set(s string) error {
	switch v := Format(strings.ToLower(s)); v {
	case Table, JSON, YAML:
		*f = v
		return nil
	}
	return fmt.Errorf("must be table, json or yaml")
}

func (f *Format) Type() string { return "table|json|yaml" }

// Flag adds --output to a command and returns its value.
func Flag(cmd *cobra.Command) *Format {
	f := Table
	cmd.Flags().VarP(&f, "output", "o", "output format")
	err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{string(Table), string(JSON), string(YAML)}, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // no such flag: a programming error
	}
	return &f
}

// WriteMessage writes m as JSON or YAML, in the form of protojson.
func WriteMessage(w io.Writer, f Format, m proto.Message) error {
	marshal := manifest.MarshalYAML
	if f == JSON {
		marshal = manifest.MarshalJSON
	}
	text, err := marshal(m)
	if err != nil {
		return err
	}
	if f == JSON {
		text = append(text, '\n')
	}
	_, err = w.Write(text)
	return err
}

// WriteJSON writes v indented, without escaping HTML characters.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
