package message

import (
	"iter"
	"strings"
)

// A Field is a header or trailer field. A name from HTTP/1 keeps its case; a
// name from HTTP/2 is in lower case.
type Field struct{ Name, Value string }

// Fields are the fields of a head or trailer, in the order received. A name may
// occur several times. Names compare without case. Only Add and Set allocate,
// and only when the slice is full.
type Fields []Field

// Get returns the value of the first field called name.
func (f Fields) Get(name string) (value string, ok bool) {
	for i := range f {
		if EqualFold(f[i].Name, name) {
			return f[i].Value, true
		}
	}
	return "", false
}

// Has reports whether a field is called name.
func (f Fields) Has(name string) bool {
	_, ok := f.Get(name)
	return ok
}

// Count returns how many fields are called name.
func (f Fields) Count(name string) (n int) {
	for i := range f {
		if EqualFold(f[i].Name, name) {
			n++
		}
	}
	return n
}

// Values yields the value of each field called name.
func (f Fields) Values(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range f {
			if EqualFold(f[i].Name, name) && !yield(f[i].Value) {
				return
			}
		}
	}
}

// Add adds a field at the end.
func (f *Fields) Add(name, value string) { *f = append(*f, Field{name, value}) }

// Set makes value the only value of name. It replaces the first field of that
// name, or adds one at the end.
func (f *Fields) Set(name, value string) {
	for i := range *f {
		if EqualFold((*f)[i].Name, name) {
			(*f)[i].Value = value
			rest := (*f)[i+1:]
			*f = (*f)[:i+1+len(removed(rest, name))]
			return
		}
	}
	f.Add(name, value)
}

// Remove removes every field called name. The others keep their order.
func (f *Fields) Remove(name string) { *f = removed(*f, name) }

func removed(f Fields, name string) Fields {
	f.RemoveFunc(func(f Field) bool { return EqualFold(f.Name, name) })
	return f
}

// RemoveFunc removes every field for which remove returns true. The others keep
// their order.
func (f *Fields) RemoveFunc(remove func(Field) bool) {
	kept := 0
	for i := range *f {
		if remove((*f)[i]) {
			continue
		}
		if kept != i { // most calls remove nothing, and moving fields costs more than comparing them
			(*f)[kept] = (*f)[i]
		}
		kept++
	}
	*f = (*f)[:kept]
}

// Elements yields the elements of every field called name, as if the fields
// were one comma-separated list (RFC 9110, section 5.6.1). It trims blanks and
// skips empty elements.
func (f Fields) Elements(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range f {
			if !EqualFold(f[i].Name, name) {
				continue
			}
			for e := range Elements(f[i].Value) {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// HasToken reports whether the list-valued field name contains token, ignoring
// case. A protocol version ("websocket/13") or a parameter ("trailers;q=1") is
// not part of the token.
func (f Fields) HasToken(name, token string) bool {
	for e := range f.Elements(name) {
		if EqualFold(bare(e), token) {
			return true
		}
	}
	return false
}

// bare returns a list element without its version or parameters.
func bare(element string) string {
	if i := strings.IndexAny(element, ";/"); i >= 0 {
		return trim(element[:i])
	}
	return element
}

// Elements yields the elements of a comma-separated list. It trims blanks and
// skips empty elements. A comma inside a quoted string separates too, so use it
// for lists of tokens only.
func Elements(list string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			for list != "" && (list[0] == ',' || isBlank(list[0])) {
				list = list[1:] // a fast path: a peer may send only commas
			}
			if list == "" {
				return
			}
			e := list
			if i := strings.IndexByte(list, ','); i >= 0 {
				e, list = list[:i], list[i+1:]
			} else {
				list = ""
			}
			if e = trim(e); e != "" && !yield(e) {
				return
			}
		}
	}
}

// trim removes optional whitespace (RFC 9110, section 5.6.3) from both ends.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// IsConnectionField reports whether a field frames the message or belongs to
// one connection (RFC 9110, section 7.6.1). Such fields are never forwarded:
// each writer sets its own.
func IsConnectionField(name string) bool {
	switch len(name) {
	case len("TE"):
		return EqualFold(name, "TE")
	case len("Upgrade"):
		return EqualFold(name, "Upgrade")
	case len("Connection"):
		return EqualFold(name, "Connection") || EqualFold(name, "Keep-Alive")
	case len("Content-Length"):
		return EqualFold(name, "Content-Length") || EqualFold(name, "HTTP2-Settings")
	case len("Proxy-Connection"):
		return EqualFold(name, "Proxy-Connection")
	case len("Transfer-Encoding"):
		return EqualFold(name, "Transfer-Encoding")
	}
	return false
}
