package certs

import (
	"fmt"
	"strings"
)

// A Fault is one error in parsed input.
type Fault struct {
	// Field is the location relative to the input: "private_key", "[2]", or empty
	// for the whole input.
	Field string
	// Problem states what is wrong and what is expected.
	Problem string
}

// Faults lists every error in parsed input.
type Faults []Fault

// Error joins all faults in one line.
func (f Faults) Error() string {
	var b strings.Builder
	for i, fault := range f {
		if i > 0 {
			b.WriteString("; ")
		}
		if fault.Field != "" {
			b.WriteString(fault.Field + ": ")
		}
		b.WriteString(fault.Problem)
	}
	return b.String()
}

func (f *Faults) add(field, format string, args ...any) {
	*f = append(*f, Fault{Field: field, Problem: fmt.Sprintf(format, args...)})
}

// err returns f, or nil if there is no fault: a nil Faults in an error would
// not be a nil error.
func (f Faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}
