package view

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func text[M proto.Message](t *testing.T, m M, in string) M {
	t.Helper()
	if err := prototext.Unmarshal([]byte(in), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// rows returns a table's cells, separated by "|".
func rows(tb *terminal.Table) []string {
	var out []string
	for _, r := range tb.Rows {
		out = append(out, strings.Join(r, "|"))
	}
	return out
}

func check(t *testing.T, tb *terminal.Table, want ...string) {
	t.Helper()
	if got := rows(tb); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// today is the time of the probes below.
var today = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// probes returns one result for each kind of failure that the view
// distinguishes.
func probes(t *testing.T) *adminv1.ProbeUpstreamResponse {
	return example(t, &adminv1.ProbeUpstreamResponse{}, "probe")
}

// example reads a message from a file in testdata.
func example[M proto.Message](t *testing.T, m M, name string) M {
	t.Helper()
	in, err := os.ReadFile(filepath.Join("testdata", name+".txtpb"))
	if err != nil {
		t.Fatal(err)
	}
	return text(t, m, string(in))
}

// contains fails the test unless got contains every text.
func contains(t *testing.T, got string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(got, text) {
			t.Errorf("no %q in\n%s", text, got)
		}
	}
}

// shown returns the status as text for people.
func shown(t *testing.T, st *adminv1.GetStatusResponse, ups []*adminv1.UpstreamStatus) string {
	t.Helper()
	var out strings.Builder
	if err := WriteStatus(&out, false, st, ups); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
