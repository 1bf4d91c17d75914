package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/pprof/profile"
)

// writeProfile writes a profile with one sample, as a running program would.
func writeProfile(t *testing.T, value int64, address uint64) string {
	t.Helper()
	m := &profile.Mapping{ID: 1, Start: 0x1000, Limit: 0x9000, File: "/home/builder/bin/drawbridge", HasFunctions: true}
	f := &profile.Function{ID: 1, Name: "main.work", SystemName: "main.work", Filename: "/home/builder/work.go", StartLine: 10}
	l := &profile.Location{ID: 1, Mapping: m, Address: address, Line: []profile.Line{{Function: f, Line: 12}}}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}},
		Sample:     []*profile.Sample{{Location: []*profile.Location{l}, Value: []int64{value}, Label: map[string][]string{"k": {"v"}}}},
		Mapping:    []*profile.Mapping{m}, Location: []*profile.Location{l}, Function: []*profile.Function{f}, TimeNanos: 1,
	}
	path := filepath.Join(t.TempDir(), "profile")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := p.Write(file); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMergedProfilesNameFunctionsButNoFiles(t *testing.T) {
	out := filepath.Join(t.TempDir(), "bench.pgo")
	if err := writePGO([]string{"-out", out, writeProfile(t, 1, 0x2000), writeProfile(t, 2, 0x3000)}); err != nil {
		t.Fatal(err)
	}
	p, err := readProfile(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Sample) != 1 || p.Sample[0].Value[0] != 3 {
		t.Fatalf("the samples are %v, want one of 3", p.Sample)
	}
	line := p.Sample[0].Location[0].Line[0]
	if f := line.Function; f.Name != "main.work" || f.StartLine != 10 || line.Line != 12 {
		t.Errorf("the function is %+v, the line %d", f, line.Line)
	}
	file, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	raw, err := profile.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range raw.Mapping {
		if m.File != "" {
			t.Errorf("the profile names the binary %s", m.File)
		}
	}
	for _, f := range raw.Function {
		if f.Filename != "" {
			t.Errorf("the profile names the file %s", f.Filename)
		}
	}
	if s := raw.Sample[0]; raw.TimeNanos != 0 || len(s.Label) != 0 || s.Location[0].Address != 0 {
		t.Errorf("the profile has a time (%d), labels (%v) or an address (%x)", raw.TimeNanos, s.Label, s.Location[0].Address)
	}
}

func TestProfilesThatCannotBeMergedAreReported(t *testing.T) {
	out := filepath.Join(t.TempDir(), "bench.pgo")
	for _, args := range [][]string{{writeProfile(t, 1, 0x2000)}, {"-out", out}, {"-out", out, "missing"}, {"-out", out, "pgo_test.go"}} {
		if err := writePGO(args); err == nil {
			t.Errorf("%q succeeded", args)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a file was written")
	}
}
