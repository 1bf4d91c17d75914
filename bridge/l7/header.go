package l7

import (
	"fmt"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// isHopByHop reports whether a field belongs to one connection (RFC 9110,
// section 7.6.1), frames a message, or is one that proxies must not pass on
// either.
func isHopByHop(name string) bool {
	switch len(name) {
	case len("Proxy-Authenticate"):
		return message.EqualFold(name, "Proxy-Authenticate")
	case len("Proxy-Authorization"):
		return message.EqualFold(name, "Proxy-Authorization")
	}
	return message.IsConnectionField(name)
}

// isFraming reports whether a field frames a message or belongs to one
// connection, so that no rule can change it.
func isFraming(name string) bool {
	return isHopByHop(name) || message.EqualFold(name, "Host") || message.EqualFold(name, "Expect") || message.EqualFold(name, "Trailer")
}

// removeHopByHop removes the fields that belong to the connection: those that
// always do, and those that Connection names.
func removeHopByHop(f *message.Fields) {
	// What Connection names first, for then Connection itself goes. Most often
	// it names nothing but options.
	for i := 0; i < len(*f); i++ {
		if !message.EqualFold((*f)[i].Name, "Connection") {
			continue
		}
		list := (*f)[i].Value
		(*f)[i].Value = "" // so that one that names itself is not met twice
		before := len(*f)
		for name := range message.Elements(list) {
			if !isHopByHop(name) && !message.EqualFold(name, "close") {
				f.Remove(name)
			}
		}
		if len(*f) != before {
			i = -1 // what is left may be anywhere
		}
	}
	f.RemoveFunc(func(f message.Field) bool { return isHopByHop(f.Name) })
}

// cleanRequest takes out of a client's request what is the connection's own and
// what only the gateway may say, before the gateway adds its own: a field that
// the client names in Connection is gone by then, and cannot take ours along.
// What is passed on of the connection's fields is in r.Upgrade and r.Trailers.
//
// An upgrade to HTTP/2 is never passed on: the requests that follow would pass
// unrouted. Nor is one of a request with a body, behind which nobody knows what
// speaks which protocol. It reports whether the client waits for 100 (Continue).
func cleanRequest(r *message.Request) (expects bool) {
	r.Upgrade, r.Trailers = "", r.Fields.HasToken("TE", "trailers")
	http11 := r.Major == 1 && r.Minor >= 1
	if http11 && !r.HasBody() && r.Fields.HasToken("Connection", "upgrade") && r.Fields.Count("Upgrade") == 1 {
		r.Upgrade, _ = r.Fields.Get("Upgrade")
		if r.Fields.HasToken("Upgrade", "h2c") || r.Fields.HasToken("Upgrade", "h2") {
			r.Upgrade = ""
		}
	}
	expects = r.Length != 0 && (http11 || r.Major > 1) && r.Fields.HasToken("Expect", "100-continue")
	removeHopByHop(&r.Fields)
	r.Fields.RemoveFunc(isClaim)
	return expects
}

// isClaim reports whether a field says what only the gateway may say to an
// upstream.
func isClaim(f message.Field) bool {
	if f.Name == "" {
		return true
	}
	switch f.Name[0] | 0x20 {
	case 'x', 'f':
		return isForwarding(f.Name)
	case 'c':
		return equalDashed(f.Name, "client-cert") || equalDashed(f.Name, "client-cert-chain")
	case 'p':
		return message.EqualFold(f.Name, "Proxy") // CGI programs would take it for the variable HTTP_PROXY
	case 'h':
		return message.EqualFold(f.Name, "Host")
	case 'e':
		return message.EqualFold(f.Name, "Expect")
	}
	return false
}

// cleanTrailer removes from the request's trailer what a trailer cannot say (RFC
// 9110, section 6.5.1), what only the gateway may say, and what its rules
// decide on: an upstream may take a trailer's fields for the header's.
func (x *exchange) cleanTrailer(trailer message.Fields) message.Fields {
	trailer.RemoveFunc(func(f message.Field) bool { return x.decides(f.Name) })
	return trailer
}

// cleanAnnouncement removes from what the request says of its trailer what
// cleanTrailer will remove from the trailer, for some servers take an announced
// field for one that came.
func (x *exchange) cleanAnnouncement() {
	r := x.request
	for i := range r.Fields {
		f := &r.Fields[i]
		if !message.EqualFold(f.Name, "Trailer") {
			continue
		}
		var kept []string
		for name := range message.Elements(f.Value) {
			if !x.decides(name) {
				kept = append(kept, name)
			}
		}
		f.Value = strings.Join(kept, ", ")
	}
	if r.Fields.Has("Trailer") {
		r.Fields.RemoveFunc(func(f message.Field) bool {
			return message.EqualFold(f.Name, "Trailer") && (f.Value == "" || r.Length == 0)
		})
	}
}

// isForwarding reports whether a field tells an upstream where a request came
// from, or by whose certificate. Servers that turn names into variables cannot
// tell X_Forwarded_For from X-Forwarded-For, so they are taken for the same.
func isForwarding(name string) bool {
	return hasPrefixFold(name, "x-forwarded-") || equalDashed(name, "x-forwarded") || equalDashed(name, "forwarded") ||
		equalDashed(name, "x-real-ip") || hasPrefixFold(name, "x-client-cert")
}

func hasPrefixFold(name, prefix string) bool {
	return len(name) >= len(prefix) && equalDashed(name[:len(prefix)], prefix)
}

// equalDashed compares a name with one in lower case, and takes an underscore
// for a dash.
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

// dashed returns a name's byte in the one spelling that equalDashed knows.
func dashed(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	case c == '_':
		return '-'
	}
	return c
}

// sameSpelled is message.EqualFold, but that it takes an underscore for a dash in
// both names.
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

// setSpelled is Fields.Set for what a client sent: none of its own is left in any
// spelling.
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

// HeaderRules are changes to a header, made in this order: remove, set, add.
type HeaderRules struct {
	Remove   []string
	Set, Add []HeaderValue
}

// A HeaderValue is a field's name, and its value for each request.
type HeaderValue struct {
	Name  string
	Value Value
}

// applyRequest makes the changes to what the upstream is sent. What is removed or
// set is so in every spelling: an upstream that takes X_Tenant for X-Tenant must
// not find the client's beside ours. Names that CheckFieldName refuses are
// skipped.
func (r *HeaderRules) applyRequest(x *exchange) {
	f := &x.request.Fields
	for _, name := range r.Remove {
		if !isFraming(name) {
			f.RemoveFunc(func(f message.Field) bool { return sameSpelled(f.Name, name) })
		}
	}
	for i := range r.Set {
		if set := &r.Set[i]; !isFraming(set.Name) {
			setSpelled(f, set.Name, set.Value.of(x))
		}
	}
	r.add(f, x)
}

// applyResponse makes the changes to what the client is sent, as applyRequest.
func (r *HeaderRules) applyResponse(x *exchange) {
	f := &x.response.Fields
	for _, name := range r.Remove {
		if !isFraming(name) {
			f.Remove(name)
		}
	}
	for i := range r.Set {
		if set := &r.Set[i]; !isFraming(set.Name) {
			f.Set(set.Name, set.Value.of(x))
		}
	}
	r.add(f, x)
}

func (r *HeaderRules) add(f *message.Fields, x *exchange) {
	for i := range r.Add {
		if add := &r.Add[i]; !isFraming(add.Name) {
			f.Add(add.Name, add.Value.of(x))
		}
	}
}

// decides reports whether the rules remove or set a field of a request.
func (r *HeaderRules) decides(name string) bool {
	for _, removed := range r.Remove {
		if sameSpelled(name, removed) {
			return true
		}
	}
	for i := range r.Set {
		if sameSpelled(name, r.Set[i].Name) {
			return true
		}
	}
	return false
}

// decides reports whether a field of the request says what only the gateway may
// say, or what a rule of the route, or of the listener, decides on.
func (x *exchange) decides(name string) bool {
	return isClaim(message.Field{Name: name}) || isFraming(name) || x.action.RequestHeaders.decides(name) ||
		x.requestID != "" && sameSpelled(name, x.table.RequestIDField) ||
		x.table.MakeTrace && isTrace(message.Field{Name: name})
}

// CheckFieldName reports why a header rule cannot name a field.
func CheckFieldName(name string) error {
	if !message.IsToken(name) {
		return fmt.Errorf("%.100q is not a header's name; write one such as X-Tenant", name)
	}
	if isFraming(name) {
		return fmt.Errorf("%s frames the message or belongs to one connection, and cannot be changed", name)
	}
	return nil
}

// CheckFieldValue reports why a header rule cannot have a value. The error
// does not show it.
func CheckFieldValue(value string) error {
	if message.ControlByte(value) >= 0 {
		return fmt.Errorf("a header's value cannot have line breaks or other control characters")
	}
	if strings.Trim(value, " \t") != value {
		return fmt.Errorf("a header's value cannot begin or end with a space")
	}
	return nil
}
