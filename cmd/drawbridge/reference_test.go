package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
)

// `make generate` sets this flag.
var updateReference = flag.Bool("update-reference", false, "write docs/reference/cli.md")

// docs/reference/cli.md contains the program's help for every command.
func TestCommandReferenceIsCurrent(t *testing.T) {
	const file = "../../docs/reference/cli.md"
	var page strings.Builder
	page.WriteString("# Command line\n\nGenerated from the commands' own help by `make generate`. Do not edit.\n")
	c := &cli{Env: &command.Env{LookupEnv: func(string) (string, bool) { return "", false }, Program: "drawbridge"}}
	root := newRoot(c)
	root.InitDefaultHelpCmd()
	writeReference(&page, root)
	if *updateReference {
		if err := os.WriteFile(file, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != page.String() {
		t.Error("docs/reference/cli.md is out of date: run make generate")
	}
}

// writeReference writes the sections of a command and its subcommands.
func writeReference(page *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
		return
	}
	fmt.Fprintf(page, "\n## %s\n\n%s.\n\n```\n%s\n```\n", cmd.CommandPath(), cmd.Short, strings.TrimSpace(cmd.Long))
	if cmd.Runnable() && !cmd.HasSubCommands() {
		fmt.Fprintf(page, "\nUsage:\n\n    %s\n", cmd.UseLine())
	}
	if cmd.Example != "" {
		fmt.Fprintf(page, "\nExamples:\n\n%s\n", indentBy(2, cmd.Example))
	}
	cmd.InitDefaultHelpFlag()
	if flags := referenceFlags(cmd.NonInheritedFlags()); flags != "" {
		fmt.Fprintf(page, "\n| flag | default | meaning |\n|---|---|---|\n%s", flags)
	}
	for _, sub := range cmd.Commands() {
		writeReference(page, sub)
	}
}

func referenceFlags(flags *pflag.FlagSet) string {
	var rows strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + value
		}
		defaultValue := ""
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" {
			defaultValue = "`" + f.DefValue + "`"
		}
		fmt.Fprintf(&rows, "| `%s` | %s | %s |\n", name, defaultValue, strings.ReplaceAll(usage, "|", `\|`))
	})
	return rows.String()
}

// indentBy indents every line by n more spaces.
func indentBy(n int, text string) string {
	prefix := strings.Repeat(" ", n)
	return prefix + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+prefix)
}
