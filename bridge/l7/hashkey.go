package l7

import (
	"fmt"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// hashKey returns what of the request decides on its endpoint, if its upstream
// hashes anything. A header or cookie that comes several times is its first, one
// that is empty is none.
func (x *exchange) hashKey() upstream.Key {
	switch h := x.back.options.Upstream.Hash(); {
	case h.ClientAddress:
		return upstream.KeyOfAddress(x.addr)
	case h.Header != "":
		value, _ := x.request.Fields.Get(h.Header)
		return upstream.KeyOf(value)
	case h.Cookie != "":
		return upstream.KeyOf(cookie(x.request.Fields, h.Cookie))
	}
	return upstream.Key{}
}

// CheckHashHeader reports why endpoints cannot be chosen by a header; nil if they
// can.
func CheckHashHeader(name string) error {
	if name != "" && isClaim(message.Field{Name: name}) {
		return fmt.Errorf("%.100q is not taken from clients, so no request has it when its endpoint is chosen", name)
	}
	return CheckFieldName(name)
}

// CheckHashCookie reports why endpoints cannot be chosen by a cookie; nil if they
// can.
func CheckHashCookie(name string) error {
	if !message.IsToken(name) {
		return fmt.Errorf("%.100q is not a cookie's name; write one such as session", name)
	}
	return nil
}

// cookie returns the value of a cookie as a client has sent it (RFC 6265, section
// 5.4), "" if it has sent none. HTTP/2 may bring each in a field of its own.
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
