// Package terminal formats text for people: tables, colors, and short words.
//
// It does not depend on the gateway. Text that may come from a peer must pass through
// Printable before it is written; a Table does that automatically.
package terminal

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Printable removes characters that would end a line or move the cursor, because parts of
// text may come from a peer.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '\uFFFD'
		}
		return r
	}, text)
}

// FirstThree joins the first three values and counts the rest: "a,b,c +2".
func FirstThree(values []string) string {
	const most = 3
	if len(values) > most {
		return fmt.Sprintf("%s +%d", strings.Join(values[:most], ","), len(values)-most)
	}
	return strings.Join(values, ",")
}

// Count returns "1 fault", "2 faults".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// JoinUpTo joins at most most values and counts the rest: "a, b and 3 more".
func JoinUpTo(values []string, most int) string {
	if len(values) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(values[:most], ", "), len(values)-most)
	}
	return strings.Join(values, ", ")
}

// Ago formats the time since an event in its largest unit.
func Ago(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days ago", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours ago", d/time.Hour)
	}
	return d.Truncate(time.Second).String() + " ago"
}

// Brief formats d with a precision that is easy to read.
func Brief(d time.Duration) string {
	switch {
	case d >= time.Second:
		d = d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		d = d.Round(10 * time.Microsecond)
	default:
		d = d.Round(time.Microsecond)
	}
	return d.String()
}

// Bytes formats a number of bytes in its largest unit.
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, prefix := float64(n)/unit, 0
	for v >= unit && prefix < len(prefixes)-1 {
		v /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %ciB", v, prefixes[prefix])
}

const prefixes = "KMGTPE"

// Pad fills text with spaces to a width.
func Pad(text string, width int) string {
	return text + strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 0))
}
