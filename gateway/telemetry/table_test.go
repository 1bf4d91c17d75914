package telemetry

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

// `make generate` sets this flag.
var updateReference = flag.Bool("update-reference", false, "write docs/reference/metrics.md")

// docs/reference/metrics.md has every row of Table.
func TestMetricsReferenceIsCurrent(t *testing.T) {
	const file = "../../docs/reference/metrics.md"
	page := reference()
	if *updateReference {
		if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != page {
		t.Error("docs/reference/metrics.md is out of date: run make generate")
	}
}

// reference returns the content of docs/reference/metrics.md.
func reference() string {
	up := strings.NewReplacer("](", "](../", "\n", " ")
	var page strings.Builder
	page.WriteString("# Metrics\n\nGenerated from `gateway/telemetry/table.go` by `make generate`. Do not edit. [Metrics](../metrics.md) says how to collect them.\n")
	for _, g := range Table {
		fmt.Fprintf(&page, "\n## %s\n", g.Title)
		if g.Intro != "" {
			fmt.Fprintf(&page, "\n%s\n", up.Replace(g.Intro))
		}
		page.WriteString("\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
		for _, m := range g.Metrics {
			fmt.Fprintf(&page, "| `%s%s` | %s | %s | %s |\n", prefix, m.Name, m.Type, m.Labels, up.Replace(m.Help))
		}
		if g.Note != "" {
			fmt.Fprintf(&page, "\n%s\n", up.Replace(g.Note))
		}
	}
	return page.String()
}

func TestHelpIsPlainText(t *testing.T) {
	for markdown, want := range map[string]string{
		"Open connections.": "Open connections.",
		"Over a [limit](limits.md#x) of `that` name, or [another](b.md).": "Over a limit of that name, or another.",
	} {
		if got := plain(markdown); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for name, text := range help() {
		if text == "" || strings.ContainsAny(text, "`[]") {
			t.Errorf("%s: %q", name, text)
		}
	}
}
