package invalid

import (
	"fmt"
	"slices"
	"strings"
)

// A Class says what kind of fault a fault is. The order is that of precedence:
// an Error with faults of several classes is answered as the first of them.
type Class int

const (
	// Argument: the request is wrong whatever the state.
	Argument Class = iota
	// NotFound: what the request names does not exist.
	NotFound
	// Conflict: the state is no longer what the request expects.
	Conflict
	// Exists: what the request would create exists.
	Exists
	// InUse: the state does not allow it now: a resource is still referred to,
	// an address is taken.
	InUse
	// Unproven: the request is fine, but what it makes live was tried and does
	// not work.
	Unproven
	// Exhausted: a limit on sizes or counts is reached.
	Exhausted
	// Unavailable: the request is fine, but cannot be carried out for a reason
	// of the gateway's own, such as a full disk.
	Unavailable
)

// A Fault is one thing that is wrong.
type Fault struct {
	Class   Class
	Field   Path
	Message string // a sentence that says what would be right
}

func (f Fault) String() string {
	if f.Field == "" {
		return f.Message
	}
	return string(f.Field) + ": " + f.Message
}

// A Warning is something that is allowed but may not be what was meant.
type Warning struct {
	Field   Path
	Message string
	Code    string // what it is about, as WarningCode of the API without its prefix
	Finding string // of a certificate, such as "NO_SAN"; may be empty
}

// A List gathers faults and warnings. The zero value is empty and ready.
type List struct {
	faults   []Fault
	warnings []Warning
}

// Add adds a fault of class Argument.
func (l *List) Add(p Path, format string, args ...any) {
	l.AddClass(Argument, p, format, args...)
}

// AddClass adds a fault.
func (l *List) AddClass(c Class, p Path, format string, args ...any) {
	l.faults = append(l.faults, Fault{Class: c, Field: p, Message: fmt.Sprintf(format, args...)})
}

// Fault adds a fault.
func (l *List) Fault(f Fault) { l.faults = append(l.faults, f) }

// Warn adds a warning of a code.
func (l *List) Warn(code string, p Path, format string, args ...any) {
	l.warnings = append(l.warnings, Warning{Code: code, Field: p, Message: fmt.Sprintf(format, args...)})
}

// Warned adds a warning.
func (l *List) Warned(w Warning) { l.warnings = append(l.warnings, w) }

// Merge adds everything that other holds.
func (l *List) Merge(other *List) {
	l.faults = append(l.faults, other.faults...)
	l.warnings = append(l.warnings, other.warnings...)
}

// Len returns the number of faults.
func (l *List) Len() int { return len(l.faults) }

// Faults returns the faults in the order they were added.
func (l *List) Faults() []Fault { return slices.Clone(l.faults) }

// Warnings returns the warnings in the order they were added.
func (l *List) Warnings() []Warning { return slices.Clone(l.warnings) }

// Err returns nil if there are no faults, else an *Error that holds them.
func (l *List) Err() error {
	if len(l.faults) == 0 {
		return nil
	}
	return &Error{Faults: l.Faults()}
}

// An Error is everything that is wrong with a request.
type Error struct {
	Faults []Fault // never empty

	// Details are messages of the API that tell more than the faults, for
	// programs. They may be cut short on the way to who made the request.
	Details []any
}

// Errorf returns an Error of one fault.
func Errorf(c Class, p Path, format string, args ...any) *Error {
	return &Error{Faults: []Fault{{Class: c, Field: p, Message: fmt.Sprintf(format, args...)}}}
}

// Error joins the faults, one a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Worst returns the class that decides how the error is answered.
func (e *Error) Worst() Class {
	worst := e.Faults[0].Class
	for _, f := range e.Faults[1:] {
		worst = min(worst, f.Class)
	}
	return worst
}
