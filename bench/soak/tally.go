package soak

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

// A tally counts what was done and what failed, by cause.
type tally struct {
	mu        sync.Mutex
	done      map[string]int64
	permitted map[string]int64
	failed    map[string]int64
}

func newTally() *tally {
	return &tally{done: map[string]int64{}, permitted: map[string]int64{}, failed: map[string]int64{}}
}

func (t *tally) count(kind string) { t.add(t.done, kind) }

// permit counts a failure that the design permits.
func (t *tally) permit(kind, cause string) { t.add(t.permitted, kind+": "+cause) }

// fail counts any other failure.
func (t *tally) fail(kind string, err error) { t.add(t.failed, kind+": "+clip(err.Error())) }

func (t *tally) add(to map[string]int64, key string) {
	t.mu.Lock()
	to[key]++
	t.mu.Unlock()
}

// failures returns the number of failures that the design does not permit.
func (t *tally) failures() (sum int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.failed {
		sum += n
	}
	return sum
}

func (t *tally) write(w io.Writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, part := range []struct {
		title  string
		counts map[string]int64
	}{{"done", t.done}, {"failures that the design permits", t.permitted}, {"other failures", t.failed}} {
		fmt.Fprintf(w, "\n%s:\n", part.title)
		if len(part.counts) == 0 {
			fmt.Fprintln(w, "         0")
		}
		for _, key := range slices.SortedFunc(maps.Keys(part.counts), cmp.Compare[string]) {
			fmt.Fprintf(w, "  %8d  %s\n", part.counts[key], key)
		}
	}
}

// clip shortens a message, which may have the address of a client in it.
func clip(text string) string { return text[:min(len(text), 240)] }
