package main

import (
	"strings"
	"testing"
	"time"
)

func TestOptionsSelectTheRun(t *testing.T) {
	o, err := parseOptions([]string{"-rows", "bulk*,reqresp", "-peers", "iocopy,nginx", "-drawbridge", "old=a,new=b", "-pairs", "3", "-seconds", "0.5"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range o.rows {
		names = append(names, r.name)
	}
	if got := strings.Join(names, " "); got != "bulk-down bulk-up reqresp" {
		t.Errorf("rows are %q", got)
	}
	if len(o.peers) != 2 || o.peers[0].Name() != "iocopy" {
		t.Errorf("peers are %v", o.peers)
	}
	if len(o.subject) != 2 || newRun(o).Subject != "new" {
		t.Errorf("subjects are %v, compared is %q", o.subject, newRun(o).Subject)
	}
	if o.length != 500*time.Millisecond || o.pairs != 3 {
		t.Errorf("length %v, pairs %d", o.length, o.pairs)
	}
	if o, err := parseOptions([]string{"-peers", ""}); err != nil || len(o.rows) != len(rows) || len(o.peers) != 0 {
		t.Errorf("without rows and peers: %d rows, %d peers, %v", len(o.rows), len(o.peers), err)
	}
}

func TestOptionsOverrideTheShortForm(t *testing.T) {
	o, err := parseOptions([]string{"-quick", "-pairs", "4"})
	if err != nil {
		t.Fatal(err)
	}
	if o.pairs != 4 || o.length != 500*time.Millisecond || len(o.rows) == 0 || len(o.rows) == len(rows) {
		t.Errorf("pairs %d, length %v, %d rows", o.pairs, o.length, len(o.rows))
	}
}

func TestInvalidOptionsAreRejected(t *testing.T) {
	for _, args := range [][]string{
		{"-rows", "bulk-sideways"}, {"-rows", "x*"}, {"-peers", "iis"}, {"-pairs", "0"}, {"-seconds", "0"},
		{"-drawbridge", "a=x,a=y"}, {"-drawbridge", "a="}, {"rows"},
	} {
		if _, err := parseOptions(args); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

func TestRowsHaveUniqueNamesAndOneKindOfWork(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.name] || strings.Contains(r.name, ",") {
			t.Errorf("the name %q is another row's, or no name", r.name)
		}
		seen[r.name] = true
		kinds := 0
		for _, kind := range []bool{r.work.load != nil && r.work.workers > 0, r.work.idle > 0 && r.work.idler != nil, r.work.config > 0, r.work.program != nil} {
			if kind {
				kinds++
			}
		}
		if kinds != 1 {
			t.Errorf("%s has not one kind of work", r.name)
		}
	}
}
