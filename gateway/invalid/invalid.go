package invalid

import (
	"fmt"
	"slices"
	"strings"
)

// A Class is the kind of a fault. Classes are in order of precedence: the first class
// among the faults of an Error decides its status.
type Class int

const (
	// Argument: the request is invalid in any state.
	Argument Class = iota
	// NotFound: a resource that the request names does not exist.
	NotFound
	// Conflict: the state has changed since the client read it.
	Conflict
	// Exists: the resource that the request would create exists.
	Exists
	// InUse: the current state does not allow the request: other resources refer to a
	// resource, or an address is in use.
	InUse
	// Pending: another revision waits to be confirmed.
	Pending
	// Unproven: the request is valid, but a probe of the new settings failed.
	Unproven
	// Exhausted: a limit on sizes or counts is reached.
	Exhausted
	// Unavailable: the request is valid, but the gateway cannot carry it out, for example
	// because its disk is full.
	Unavailable
)

// A Fault is one error in a request.
type Fault struct {
	Class   Class
	Field   Path
	Message string // the fact and how to correct it
}

func (f Fault) String() string {
	if f.Field == "" {
		return f.Message
	}
	return string(f.Field) + ": " + f.Message
}

// A Warning is about a setting that is valid but may be a mistake.
type Warning struct {
	Field   Path
	Message string
	Code    string // a WarningCode of the API without its prefix
	Finding string // a finding about a certificate, such as "NO_SAN"; may be empty
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

// Warn adds a warning with a code.
func (l *List) Warn(code string, p Path, format string, args ...any) {
	l.warnings = append(l.warnings, Warning{Code: code, Field: p, Message: fmt.Sprintf(format, args...)})
}

// AddWarning adds a warning.
func (l *List) AddWarning(w Warning) { l.warnings = append(l.warnings, w) }

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

// An Error holds all faults of a request.
type Error struct {
	Faults []Fault // never empty

	// Details are messages of the API with more detail for programs. They may be
	// shortened in the response.
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

// Worst returns the class that decides the status of the error.
func (e *Error) Worst() Class {
	worst := e.Faults[0].Class
	for _, f := range e.Faults[1:] {
		worst = min(worst, f.Class)
	}
	return worst
}
