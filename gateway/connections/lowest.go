package connections

import (
	"cmp"
	"slices"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
)

// A numbered is an entry with its number, cached for sorting.
type numbered struct {
	number uint64
	live.Entry
}

// A lowest collects the entries with the lowest numbers. It never sorts or holds more than
// twice as many as wanted, because a page of a list is short and the connections are many.
type lowest struct {
	wanted int
	found  []numbered
	full   bool   // found had the wanted number of entries when it was last cut
	limit  uint64 // if full, higher numbers are not among the lowest
}

// add adds an entry.
func (l *lowest) add(n uint64, e live.Entry) {
	if l.full && n > l.limit {
		return
	}
	if l.found = append(l.found, numbered{n, e}); len(l.found) == 2*l.wanted {
		l.cut()
	}
}

// cut removes all but the lowest entries, and sorts those.
func (l *lowest) cut() {
	slices.SortFunc(l.found, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	if len(l.found) >= l.wanted {
		clear(l.found[l.wanted:])
		l.found = l.found[:l.wanted]
		l.full, l.limit = true, l.found[l.wanted-1].number
	}
}

// sorted returns the lowest entries in ascending order, at most the wanted number.
func (l *lowest) sorted() []numbered {
	l.cut()
	return l.found
}
