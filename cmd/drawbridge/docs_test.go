package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	documentedCommand = regexp.MustCompile(`^\s*(?:\$ )?drawbridge ([a-z].*)$`)
	quotedWord        = regexp.MustCompile(`"[^"]*"|'[^']*'|[^\s"']+`)
)

// Every command shown in the README and on the pages of docs exists, and so does
// every flag it is shown with.
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
			// What follows belongs to the shell.
			command, _, _ := strings.Cut(match[1], " #")
			for _, end := range []string{" |", " &", " >", " 2>", "; ", " || "} {
				command, _, _ = strings.Cut(command, end)
			}
			var args []string
			for _, word := range quotedWord.FindAllString(command, -1) {
				args = append(args, strings.Trim(word, `"'`))
			}
			found++
			cmd, rest, err := newRoot(&cli{lookupEnv: os.LookupEnv}).Find(args)
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err != nil {
				t.Errorf("%s: drawbridge %s: %v", filepath.Base(page), command, err)
			}
		}
	}
	if found < 25 {
		t.Errorf("found only %d commands", found)
	}
}
