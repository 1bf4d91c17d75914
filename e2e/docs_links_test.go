// Every link in the documentation leads to an existing file and heading. Every page
// is short, begins with its purpose, and is in the index.

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	fencedBlock = regexp.MustCompile("(?ms)^```.*?^```$")
	// A link's text may be broken over lines, its target may not.
	markdownLink = regexp.MustCompile(`\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)`)
	heading      = regexp.MustCompile(`(?m)^#{1,6} +(.*)$`)
	// A page begins with what the reader will know or be able to do.
	pageOpening = regexp.MustCompile(`\A# [^\n]+\n\nAfter this page `)
	// GitHub drops these characters from a heading's anchor.
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// maxPageLines bounds a page, so that it answers one question.
const maxPageLines = 250

func TestDocumentationLinks(t *testing.T) {
	pages := documentationPages(t)
	if len(pages) < 30 {
		t.Fatalf("found only %d pages", len(pages))
	}
	links := 0
	for _, page := range pages {
		text := fencedBlock.ReplaceAllString(readPage(t, page), "")
		for _, match := range markdownLink.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			links++
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s links to %s, which does not exist", page, match[1])
				continue
			}
			if anchor != "" && !headingAnchors(readPage(t, file))[anchor] {
				t.Errorf("%s links to %s, and %s has no such heading", page, match[1], file)
			}
		}
	}
	if links < 100 {
		t.Errorf("found only %d links", links)
	}
}

func TestDocumentationPagesAreShortAndSayWhatTheyAreFor(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal("no pages", err)
	}
	index := readPage(t, "../docs/README.md")
	for _, page := range pages {
		name := filepath.Base(page)
		text := readPage(t, page)
		if lines := strings.Count(text, "\n"); lines > maxPageLines {
			t.Errorf("%s has %d lines: split it by question, at most %d", page, lines, maxPageLines)
		}
		if name == "README.md" {
			continue
		}
		if !pageOpening.MatchString(text) {
			t.Errorf("%s does not begin with what the reader can do: \"After this page you …\"", page)
		}
		if !strings.Contains(index, "("+name+")") {
			t.Errorf("docs/README.md does not link to %s", name)
		}
	}
}

// documentationPages returns every Markdown page of the repository.
func documentationPages(t *testing.T) []string {
	var pages []string
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../docs/*/*.md", "../bench/*.md", "../deploy/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	return pages
}

func readPage(t *testing.T, file string) string {
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return ""
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// headingAnchors returns the anchors GitHub gives to the headings of a page.
func headingAnchors(page string) map[string]bool {
	anchors := make(map[string]bool)
	for _, match := range heading.FindAllStringSubmatch(fencedBlock.ReplaceAllString(page, ""), -1) {
		title := strings.ToLower(strings.ReplaceAll(match[1], "`", ""))
		anchors[strings.ReplaceAll(notInAnchor.ReplaceAllString(title, ""), " ", "-")] = true
	}
	return anchors
}
