package main

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
)

// `make packages` sets this flag.
var writeManual = flag.String("manual", "", "write the manual pages to this directory")

// Every command has a manual page with its description and its flags. The pages are the
// same in every run, so that packages can be reproduced.
func TestManualPages(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	if *writeManual != "" {
		first = *writeManual
	}
	root := manual(t, first)
	manual(t, second)
	commands := 0
	var check func(*cobra.Command)
	check = func(cmd *cobra.Command) {
		if !cmd.IsAvailableCommand() {
			return
		}
		commands++
		file := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		page, err := os.ReadFile(filepath.Join(first, file))
		if err != nil {
			t.Fatal(err)
		}
		again, err := os.ReadFile(filepath.Join(second, file))
		if err != nil {
			t.Fatal(err)
		}
		if string(page) != string(again) {
			t.Errorf("%s differs in a second run", file)
		}
		text := strings.ReplaceAll(string(page), `\-`, "-")
		for line := range strings.Lines(cmd.Long) {
			if line = strings.TrimSpace(line); !strings.Contains(text, escaped(line)) {
				t.Errorf("%s lacks %q", file, line)
			}
		}
		cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(text, "--"+f.Name) {
				t.Errorf("%s lacks --%s", file, f.Name)
			}
		})
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	check(root)
	if files, err := os.ReadDir(first); err != nil || len(files) != commands {
		t.Errorf("%d files for %d commands (%v)", len(files), commands, err)
	}
}

// manual writes the manual pages of all commands and returns the root command.
func manual(t *testing.T, dir string) *cobra.Command {
	t.Helper()
	env := &command.Env{LookupEnv: func(string) (string, bool) { return "", false }, Program: "drawbridge"}
	pages, texts := newRoot(&cli{Env: env}), newRoot(&cli{Env: env})
	prepareManual(pages)
	var seconds int64
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		var err error
		if seconds, err = strconv.ParseInt(epoch, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	date := time.Unix(seconds, 0).UTC()
	header := &doc.GenManHeader{Section: "1", Date: &date, Source: "drawbridge", Manual: "Drawbridge"}
	if err := doc.GenManTree(pages, header, dir); err != nil {
		t.Fatal(err)
	}
	return texts
}

// prepareManual prepares the descriptions for the page generator, which reads
// Markdown, so that it keeps their line breaks.
func prepareManual(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true // the tag contains the date
	cmd.Long = "```\n" + cmd.Long + "\n```"
	for _, sub := range cmd.Commands() {
		prepareManual(sub)
	}
}

// escaped returns a line in the form of a manual page's source, with plain hyphens.
func escaped(line string) string {
	line = strings.ReplaceAll(line, `\`, `\\`)
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		line = `\&` + line
	}
	return line
}
