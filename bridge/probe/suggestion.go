package probe

import (
	"fmt"
	"strconv"
)

// A Suggestion is a change that would help.
type Suggestion struct {
	// Field is the upstream's field to set: "tls.verify_name". Empty: the change is
	// not in the upstream.
	Field string

	// Value is the value to set: a list as JSON, any other value unchanged. If it
	// is empty, only Text describes the change.
	Value string

	// Text is the change in a sentence. Empty: no change is needed.
	Text string
}

// setTo suggests an enum value or a number.
func setTo(field, value string) Suggestion {
	return Suggestion{Field: field, Value: value, Text: "set " + field + " to " + value}
}

// setToString suggests a string.
func setToString(field, value string) Suggestion {
	return Suggestion{Field: field, Value: value, Text: "set " + field + " to " + strconv.Quote(value)}
}

// setToList suggests a list of strings.
func setToList(field string, elements ...string) Suggestion {
	return setTo(field, values(elements...))
}

// remove suggests removing a field.
func remove(field string) Suggestion {
	return Suggestion{Field: field, Text: "remove " + field}
}

// about suggests a change of a field that only a text can describe.
func about(field, format string, args ...any) Suggestion {
	return Suggestion{Field: field, Text: fmt.Sprintf(format, args...)}
}

// and returns the suggestion with more text after it.
func (s Suggestion) and(format string, args ...any) Suggestion {
	s.Text += fmt.Sprintf(format, args...)
	return s
}
