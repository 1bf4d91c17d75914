package policy

import (
	"fmt"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// HashKey returns the key by which consistent hashing chooses the request's
// endpoint, or the zero Key if the upstream does not hash. If several headers
// or cookies have the same name, the first one counts. An empty value counts as
// missing.
func (f *Facts) HashKey(h upstream.HashKey) upstream.Key {
	switch {
	case h.ClientAddress:
		return upstream.KeyOfAddress(f.Address)
	case h.Header != "":
		value, _ := f.Request.Fields.Get(h.Header)
		return upstream.KeyOf(value)
	case h.Cookie != "":
		return upstream.KeyOf(cookie(f.Request.Fields, h.Cookie))
	}
	return upstream.Key{}
}

// CheckHashHeader reports why a header cannot choose endpoints; nil if it can.
func CheckHashHeader(name string) error {
	if name != "" && isClaim(message.Field{Name: name}) {
		return fmt.Errorf("%.100q is removed from clients' requests, so it cannot choose an endpoint; name another header", name)
	}
	return CheckFieldName(name)
}

// CheckHashCookie reports why a cookie cannot choose endpoints; nil if it can.
func CheckHashCookie(name string) error {
	if !message.IsToken(name) {
		return fmt.Errorf("%.100q is not a cookie's name; write one such as session", name)
	}
	return nil
}

// cookie returns the value of a cookie (RFC 6265, section 5.4); "" if the client
// sent none. HTTP/2 may carry each cookie in a field of its own.
func cookie(fields message.Fields, name string) string {
	for i := range fields {
		if !message.EqualFold(fields[i].Name, "Cookie") {
			continue
		}
		for rest := fields[i].Value; rest != ""; {
			var pair string
			pair, rest, _ = strings.Cut(rest, ";")
			if key, value, ok := strings.Cut(strings.Trim(pair, " \t"), "="); ok && key == name {
				return value
			}
		}
	}
	return ""
}
