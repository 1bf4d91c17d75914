package l7

import (
	"fmt"
	"net/textproto"
	"slices"
	"strings"
)

// fields are a header's fields by canonical name.
type fields map[string][]string

// hopByHop are the fields that belong to one connection (RFC 9110, section
// 7.6.1), and some that proxies must not pass on either.
var hopByHop = []string{
	"Connection",
	"Http2-Settings",
	"Keep-Alive",
	"Proxy-Authenticate",
	"Proxy-Authorization",
	"Proxy-Connection",
	"Te",
	"Trailer",
	"Transfer-Encoding",
	"Upgrade",
}

// cleanRequest removes from a client's header what is the connection's own and
// what only the gateway may say, before the gateway adds its own: a field that
// the client names in Connection is gone by then, and cannot take ours along.
//
// What remains of the connection's fields is "Te: trailers", and Upgrade with
// its Connection if upgrades is set, as HTTP/1.1 alone has them. An upgrade to
// HTTP/2 is never passed on: the requests that follow would pass unrouted.
func (h fields) cleanRequest(upgrades bool) {
	upgrade, trailers := "", hasToken(h["Te"], "trailers")
	if upgrades && hasToken(h["Connection"], "upgrade") && len(h["Upgrade"]) == 1 {
		upgrade = h["Upgrade"][0]
	}
	h.removeHopByHop()
	for name := range h {
		if isForwarding(name) {
			delete(h, name)
		}
	}
	delete(h, "Proxy") // CGI programs would take it for the variable HTTP_PROXY
	delete(h, "Host")
	if trailers {
		h["Te"] = []string{"trailers"}
	}
	if upgrade != "" && !hasToken([]string{upgrade}, "h2c") && !hasToken([]string{upgrade}, "h2") {
		h["Connection"] = []string{"Upgrade"}
		h["Upgrade"] = []string{upgrade}
	}
}

// removeHopByHop removes the fields that belong to the connection: those that
// always do, and those that Connection names.
func (h fields) removeHopByHop() {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			delete(h, textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)))
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// cleanTrailer removes from a request's trailer what a trailer cannot say (RFC
// 9110, section 6.5.1), what only the gateway may say, and what its rules
// decide on: an upstream may take a trailer's fields for the header's.
func (h fields) cleanTrailer(rules *HeaderRules) {
	for name := range h {
		if isForwarding(name) || isFraming(name) || name == "Proxy" {
			delete(h, name)
		}
	}
	for _, name := range rules.Remove {
		delete(h, textproto.CanonicalMIMEHeaderKey(name))
	}
	for _, f := range rules.Set {
		delete(h, textproto.CanonicalMIMEHeaderKey(f.Name))
	}
}

// isForwarding reports whether a field tells an upstream where a request came
// from. Servers that turn names into variables cannot tell X_Forwarded_For from
// X-Forwarded-For, so they are taken for the same.
func isForwarding(name string) bool {
	if name == "" || name[0]|0x20 != 'x' && name[0]|0x20 != 'f' {
		return false
	}
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	return strings.HasPrefix(name, "x-forwarded-") || name == "x-forwarded" || name == "forwarded" || name == "x-real-ip"
}

// setForwarding adds what the gateway knows of a request's origin. client is
// an IP address, or "" where clients have none.
func (h fields) setForwarding(client, authority string, tls bool) {
	proto := "http"
	if tls {
		proto = "https"
	}
	if client != "" {
		h["X-Forwarded-For"] = []string{client}
	}
	h["X-Forwarded-Host"] = []string{authority}
	h["X-Forwarded-Proto"] = []string{proto}
}

// HeaderRules are changes to a header, made in this order: remove, set, add.
type HeaderRules struct {
	Remove   []string
	Set, Add []Field
}

// A Field is a header field.
type Field struct{ Name, Value string }

// apply makes the changes. Names that CheckFieldName refuses are skipped.
func (r *HeaderRules) apply(h fields) {
	for _, name := range r.Remove {
		if name = textproto.CanonicalMIMEHeaderKey(name); !isFraming(name) {
			delete(h, name)
		}
	}
	for _, f := range r.Set {
		if name := textproto.CanonicalMIMEHeaderKey(f.Name); !isFraming(name) {
			h[name] = []string{f.Value}
		}
	}
	for _, f := range r.Add {
		if name := textproto.CanonicalMIMEHeaderKey(f.Name); !isFraming(name) {
			h[name] = append(slices.Clip(h[name]), f.Value)
		}
	}
}

// isFraming reports whether a field, by canonical name, frames a message or
// belongs to one connection.
func isFraming(name string) bool {
	return name == "Host" || name == "Content-Length" || name == "Expect" || slices.Contains(hopByHop, name)
}

// CheckFieldName reports why a header rule cannot name a field.
func CheckFieldName(name string) error {
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return !isTokenByte(c) }) {
		return fmt.Errorf("%.100q is not a header's name; write one such as X-Tenant", name)
	}
	if isFraming(textproto.CanonicalMIMEHeaderKey(name)) {
		return fmt.Errorf("%s frames the message or belongs to one connection, and cannot be changed", name)
	}
	return nil
}

// CheckFieldValue reports why a header rule cannot have a value. The error
// does not show it.
func CheckFieldValue(value string) error {
	if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
		return fmt.Errorf("a header's value cannot have line breaks or other control characters")
	}
	if strings.Trim(value, " \t") != value {
		return fmt.Errorf("a header's value cannot begin or end with a space")
	}
	return nil
}

func isTokenByte(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c)
}

// hasToken reports whether one of the comma-separated lists has a token, in
// any case. A protocol's version ("websocket/13") or a parameter ("trailers;q=1")
// is no part of the token.
func hasToken(lists []string, token string) bool {
	for _, list := range lists {
		for item := range strings.SplitSeq(list, ",") {
			if i := strings.IndexAny(item, ";/"); i >= 0 {
				item = item[:i]
			}
			if strings.EqualFold(textproto.TrimString(item), token) {
				return true
			}
		}
	}
	return false
}
