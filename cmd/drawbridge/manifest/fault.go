package manifest

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxFaults bounds how many faults are listed.
const maxFaults = 100

// A Place is a position in a file.
type Place struct {
	File     string
	Line     int    // from 1; 0 if unknown
	Document int    // number in the file, from 1; 0 if unknown
	Kind     string // "Listener"; empty if unknown
	Name     string // name of the resource; empty if unknown
}

// String returns "web.yaml:12: document 2 (Listener web)".
func (p Place) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Document > 0 {
		fmt.Fprintf(&b, ": document %d", p.Document)
	}
	if p.Kind != "" || p.Name != "" {
		fmt.Fprintf(&b, " (%s)", strings.TrimSpace(p.Kind+" "+bounded(p.Name)))
	}
	return b.String()
}

// A Fault is an error in a file.
type Fault struct {
	Place   Place
	Field   string // path as the file spells it: "tls.minVersion"; may be empty
	Message string
}

func (f Fault) String() string {
	if f.Field == "" {
		return f.Place.String() + ": " + f.Message
	}
	return f.Place.String() + ": " + bounded(f.Field) + ": " + f.Message
}

// Faults holds all faults of some files, in order.
type Faults []Fault

// Error returns a line for each of the first hundred faults, and the number of
// the others.
func (fs Faults) Error() string {
	var b strings.Builder
	for i, f := range fs {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == maxFaults {
			fmt.Fprintf(&b, "and %d more", len(fs)-i)
			break
		}
		b.WriteString(f.String())
	}
	return b.String()
}

// bounded shortens text from a file to one line of a report, and removes anything that
// may be a misplaced key.
func bounded(s string) string {
	const most = 120
	if strings.Contains(s, "PRIVATE KEY") {
		return "(left out: it holds key material)"
	}
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

func quote(s string) string { return `"` + bounded(s) + `"` }
