package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
)

func TestTailsAreMeasuredAtSharesOfTheSlowestRate(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tunnel := overBytes{proxy.IOCopy{Program: self}}
	var report bytes.Buffer
	b := &tails{
		options: &options{pairs: 1, warmUp: time.Millisecond, length: 50 * time.Millisecond},
		kinds:   []proxy.Kind{tunnel, tunnel}, keys: k, report: &report,
	}
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the slowest proxy reaches", "50 % of that", "80 % of that", "alone", "beside ten answers", "p99 beside bulk is"} {
		if !strings.Contains(report.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &report)
		}
	}
}
