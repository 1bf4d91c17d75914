package invalid

import "strconv"

// A Path names a field of a request in protobuf spelling:
// "upstream.endpoints[2].address". The zero value is the request itself.
type Path string

// Field returns the path of the field name within p.
func (p Path) Field(name string) Path {
	if p == "" {
		return Path(name)
	}
	return p + "." + Path(name)
}

// Index returns the path of the element i of the list p.
func (p Path) Index(i int) Path {
	return p + Path("["+strconv.Itoa(i)+"]")
}

// Key returns the path of the entry key of the map p.
func (p Path) Key(key string) Path {
	return p + Path("["+strconv.Quote(key)+"]")
}

// Join returns p followed by a suffix from package certs: "", a field
// name, or an index in brackets.
func (p Path) Join(suffix string) Path {
	if suffix == "" {
		return p
	}
	if suffix[0] == '[' {
		return p + Path(suffix)
	}
	return p.Field(suffix)
}
