package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
)

var (
	documentedCommand = regexp.MustCompile(`^\s*(?:\$ )?drawbridge ([a-z].*)$`)
	quotedWord        = regexp.MustCompile(`"[^"]*"|'[^']*'|[^\s"']+`)
)

// The README and the pages in docs show only commands and flags that exist.
func TestDocumentedCommandsParse(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		fenced := false
		for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
			line = strings.TrimRight(line, "\n")
			if strings.HasPrefix(line, "```") {
				fenced = !fenced
				continue
			}
			match := documentedCommand.FindStringSubmatch(line)
			if match == nil || !fenced && !strings.HasPrefix(line, "    ") {
				continue
			}
			// The rest of the line is for the shell.
			line, _, _ := strings.Cut(match[1], " #")
			for _, end := range []string{" |", " &", " >", " 2>", "; ", " || "} {
				line, _, _ = strings.Cut(line, end)
			}
			var args []string
			for _, word := range quotedWord.FindAllString(line, -1) {
				args = append(args, strings.Trim(word, `"'`))
			}
			found++
			cmd, rest, err := newRoot(&cli{Env: &command.Env{LookupEnv: os.LookupEnv}}).Find(args)
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err != nil {
				t.Errorf("%s: drawbridge %s: %v", filepath.Base(page), line, err)
			}
		}
	}
	if found < 25 {
		t.Errorf("found only %d commands", found)
	}
}
