package policy

import (
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// Servers that turn field names into variables, as CGI and WSGI do, cannot
// distinguish Content_Length from Content-Length: both become CONTENT_LENGTH. Some
// turn every character that is neither letter nor digit into an underscore. Such a
// field would pass all checks here and still take effect upstream.

// UnderscoreFields chooses what happens to a client's fields whose names have
// underscores. Every choice drops fields that an upstream could mistake for fields
// that only the gateway or its rules set.
type UnderscoreFields int

// The zero UnderscoreFields is DropRepeatedMeaning.
const (
	DropRepeatedMeaning UnderscoreFields = iota // drops fields that could be mistaken for one that frames, routes or identifies
	KeepUnderscores
	DropAllUnderscores
)

// A Spelling says which fields are dropped because of how their names are spelled.
type Spelling struct {
	Underscores UnderscoreFields
	Routing     []string // names of fields that routes match
}

// drops reports whether a field is dropped because of its name's spelling.
func (s *Spelling) drops(name string) bool {
	if s.Underscores == KeepUnderscores {
		return false
	}
	for _, routing := range s.Routing {
		if sameSpelled(name, routing) && !slices.ContainsFunc(s.Routing, func(r string) bool { return message.EqualFold(r, name) }) {
			return true
		}
	}
	if message.IsPlainName(name) {
		return false
	}
	return s.Underscores == DropAllUnderscores && strings.IndexByte(name, '_') >= 0 || spellsMeaning(name)
}

// routes reports whether a name, in any spelling, is the name of a field that routes
// match.
func (s *Spelling) routes(name string) bool {
	return slices.ContainsFunc(s.Routing, func(routing string) bool { return sameSpelled(name, routing) })
}

// spellsMeaning reports whether a name could be mistaken for the name of a field
// that frames a message, belongs to the connection, or changes what the gateway
// does. isClaim covers the fields that identify the client.
func spellsMeaning(name string) bool {
	switch len(name) {
	case len("Keep-Alive"):
		return equalDashed(name, "keep-alive")
	case len("Content-Type"):
		return equalDashed(name, "content-type") || equalDashed(name, "grpc-timeout")
	case len("Content-Length"):
		return equalDashed(name, "content-length") || equalDashed(name, "http2-settings")
	case len("Proxy-Connection"):
		return equalDashed(name, "proxy-connection")
	case len("Transfer-Encoding"):
		return equalDashed(name, "transfer-encoding")
	case len("Proxy-Authenticate"):
		return equalDashed(name, "proxy-authenticate")
	case len("Proxy-Authorization"):
		return equalDashed(name, "proxy-authorization")
	}
	return false
}

// RemoveRespelled removes the fields that could be mistaken for a field called name.
func (s *Spelling) RemoveRespelled(f *message.Fields, name string) {
	if s.Underscores != KeepUnderscores {
		f.RemoveFunc(func(f message.Field) bool { return sameSpelled(f.Name, name) && !message.EqualFold(f.Name, name) })
	}
}

func hasPrefixFold(name, prefix string) bool {
	return len(name) >= len(prefix) && equalDashed(name[:len(prefix)], prefix)
}

// equalDashed is sameSpelled for a name in lower case, with dashes.
func equalDashed(name, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if dashed(c) != lower[i] {
			return false
		}
	}
	return true
}

// dashed returns a byte of a name in lower case, with a dash for every byte
// that is neither letter nor digit.
func dashed(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
		return c
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	}
	return '-'
}

// sameSpelled reports whether servers that turn names into variables may treat
// two names as the same.
func sameSpelled(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && dashed(a[i]) != dashed(b[i]) {
			return false
		}
	}
	return true
}

// setSpelled is Fields.Set for a client's fields: it also removes the client's other
// spellings of the name.
func setSpelled(f *message.Fields, name, value string) {
	for i := range *f {
		if sameSpelled((*f)[i].Name, name) {
			(*f)[i] = message.Field{Name: name, Value: value}
			rest := (*f)[i+1:]
			rest.RemoveFunc(func(f message.Field) bool { return sameSpelled(f.Name, name) })
			*f = (*f)[:i+1+len(rest)]
			return
		}
	}
	f.Add(name, value)
}
