package flame

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

// profileOf returns a profile with the CPU time of chains of calls, callers first.
func profileOf(chains map[string]int64) *profile.Profile {
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}}}
	for chain, time := range chains {
		s := &profile.Sample{Value: []int64{1, time}}
		for name := range strings.SplitSeq(chain, ";") {
			l := &profile.Location{ID: uint64(len(p.Location) + 1), Line: []profile.Line{{Function: &profile.Function{Name: name}}}}
			p.Location, s.Location = append(p.Location, l), append([]*profile.Location{l}, s.Location...)
		}
		p.Sample = append(p.Sample, s)
	}
	return p
}

func TestAFlameGraphShowsWhereTheTimeGoes(t *testing.T) {
	p := profileOf(map[string]int64{
		"github.com/drawbridge-gateway/drawbridge/bridge/splice.(*loop).run;internal/runtime/syscall.Syscall6":    50,
		"github.com/drawbridge-gateway/drawbridge/bridge/splice.(*loop).run;crypto/internal/fips140/aes/gcm.seal": 30,
		"github.com/drawbridge-gateway/drawbridge/bridge/splice.(*loop).run":                                      15,
		"runtime.mcall;slices.sort[go.shape.int];a<b":                                                             5,
	})
	for i, want := range []float64{Kernel: 0.5, Cryptography: 0.3, Runtime: 0, Libraries: 0.05, Drawbridge: 0.15} {
		if got := Shares(p)[i]; math.Abs(got-want) > 1e-9 {
			t.Errorf("%v has %v, want %v", Owner(i), got, want)
		}
	}
	var out bytes.Buffer
	if err := Draw(&out, "a <title>", p); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"a &lt;title&gt;", "system calls 50 %", "<title>bridge/splice.(*loop).run: 95.0 %, itself 15.0 %</title>", `width="1140.0"`,
		"<title>crypto/internal/fips140/aes/gcm.seal: 30.0 %, itself 30.0 %</title>", "<title>slices.sort: 5.0 %", "<title>a&lt;b: 5.0 %",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	for d := xml.NewDecoder(&out); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestThinBoxesAreLeftOut(t *testing.T) {
	var out bytes.Buffer
	if err := Draw(&out, "", profileOf(map[string]int64{"main.wide": 10_000, "main.thin;main.below": 1})); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); !strings.Contains(s, "main.wide") || strings.Contains(s, "main.thin") || strings.Contains(s, "main.below") {
		t.Error(s)
	}
	if Draw(io.Discard, "", &profile.Profile{}) == nil {
		t.Error("an empty profile was drawn")
	}
}
