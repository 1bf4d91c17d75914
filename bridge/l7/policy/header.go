package policy

import (
	"fmt"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// isHopByHop reports whether a field belongs to one connection (RFC 9110, section
// 7.6.1), frames a message, or must not be forwarded by proxies for another reason.
func isHopByHop(name string) bool {
	switch len(name) {
	case len("Proxy-Authenticate"):
		return message.EqualFold(name, "Proxy-Authenticate")
	case len("Proxy-Authorization"):
		return message.EqualFold(name, "Proxy-Authorization")
	}
	return message.IsConnectionField(name)
}

// IsFraming reports whether a field frames a message or belongs to one
// connection, so that no rule can change it.
func IsFraming(name string) bool {
	return isHopByHop(name) || message.EqualFold(name, "Host") || message.EqualFold(name, "Expect") || message.EqualFold(name, "Trailer")
}

// RemoveHopByHop removes the fields that belong to the connection: those that
// always do, and those that Connection names.
func RemoveHopByHop(f *message.Fields) {
	var room [4]string // Connection rarely names a field
	named := room[:0]
	for i := range *f {
		if !message.EqualFold((*f)[i].Name, "Connection") {
			continue
		}
		for name := range message.Elements((*f)[i].Value) {
			if !isHopByHop(name) && !message.EqualFold(name, "close") {
				named = append(named, name)
			}
		}
	}
	if len(named) > len(room) {
		removeNamed(f, named)
		named = nil
	}
	f.RemoveFunc(func(f message.Field) bool {
		if isHopByHop(f.Name) {
			return true
		}
		for _, name := range named {
			if message.EqualFold(f.Name, name) {
				return true
			}
		}
		return false
	})
}

// removeNamed removes the fields with the given names. It compares hashes first, because a
// peer may send many long names that differ only in their last letters.
func removeNamed(f *message.Fields, names []string) {
	hashes := make([]uint32, len(names))
	for i, name := range names {
		hashes[i] = nameHash(name)
	}
	f.RemoveFunc(func(f message.Field) bool {
		h := nameHash(f.Name)
		for i, other := range hashes {
			if h == other && message.EqualFold(f.Name, names[i]) {
				return true
			}
		}
		return false
	})
}

// nameHash returns a hash (FNV-1a) that is the same for names that differ only in case.
func nameHash(name string) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i]|0x20)) * 16777619
	}
	return h
}

// CleanRequest removes from a client's request the connection's fields and those
// that only the gateway may set. The gateway adds its own fields afterward, so a
// client cannot remove them by naming them in Connection. Connection fields that
// are forwarded end up in r.Upgrade and r.Trailers.
//
// An upgrade to HTTP/2 is never forwarded: the requests that follow it would not
// be routed. Nor is the upgrade of a request with a body: it would be unclear
// where the new protocol begins. CleanRequest reports whether the client waits
// for 100 (Continue).
//
// Spelling says which fields are dropped because of how their names are spelled.
func CleanRequest(r *message.Request, spelling *Spelling) (expects bool) {
	r.Upgrade, r.Trailers = "", r.Fields.HasToken("TE", "trailers")
	http11 := r.Major == 1 && r.Minor >= 1
	if http11 && !r.HasBody() && r.Fields.HasToken("Connection", "upgrade") && r.Fields.Count("Upgrade") == 1 {
		r.Upgrade, _ = r.Fields.Get("Upgrade")
		if r.Fields.HasToken("Upgrade", "h2c") || r.Fields.HasToken("Upgrade", "h2") {
			r.Upgrade = ""
		}
	}
	expects = r.Length != 0 && (http11 || r.Major > 1) && r.Fields.HasToken("Expect", "100-continue")
	RemoveHopByHop(&r.Fields)
	r.Fields.RemoveFunc(func(f message.Field) bool { return isClaim(f) || spelling.drops(f.Name) })
	return expects
}

// isClaim reports whether a field says something that only the gateway may say to
// an upstream.
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
		return message.EqualFold(f.Name, "Proxy") // CGI programs would read it as the variable HTTP_PROXY
	case 'h':
		return message.EqualFold(f.Name, "Host")
	case 'e':
		return message.EqualFold(f.Name, "Expect")
	}
	return false
}

// Protected are the fields that a request's trailer cannot set: fields that no
// trailer may set (RFC 9110, section 6.5.1), fields that only the gateway may
// set, fields that header rules set or remove, and fields that decide where the
// request goes. Upstreams may merge a trailer into the header.
type Protected struct {
	Rules          *HeaderRules
	RequestIDField string    // "": requests get no ID
	HashField      string    // the field that chooses the endpoint; "": no field
	Traces         bool      // the gateway begins traces
	Spelling       *Spelling // the Spelling that CleanRequest used
}

// has reports whether a field is protected.
func (p *Protected) has(name string) bool {
	return isClaim(message.Field{Name: name}) || IsFraming(name) || p.Rules.decides(name) ||
		p.RequestIDField != "" && sameSpelled(name, p.RequestIDField) || p.HashField != "" && sameSpelled(name, p.HashField) ||
		p.Spelling.drops(name) || p.Spelling.routes(name) ||
		p.Traces && isTrace(message.Field{Name: name})
}

// CleanTrailer removes the protected fields from a request's trailer.
func (p *Protected) CleanTrailer(trailer message.Fields) message.Fields {
	trailer.RemoveFunc(func(f message.Field) bool { return p.has(f.Name) })
	return trailer
}

// maxAnnounced bounds how many names of trailer fields are announced to an upstream.
// The announcement is a hint, and checking a name costs more than receiving it.
const maxAnnounced = 64

// CleanAnnouncement removes from a request's Trailer field the names that
// CleanTrailer will remove from the trailer, because some servers treat an announced
// field as received. It removes the names above maxAnnounced too.
func (p *Protected) CleanAnnouncement(r *message.Request) {
	names := 0
	for i := range r.Fields {
		f := &r.Fields[i]
		if !message.EqualFold(f.Name, "Trailer") {
			continue
		}
		var kept []byte
		for name := range message.Elements(f.Value) {
			if names++; names > maxAnnounced {
				break
			}
			if p.has(name) {
				continue
			}
			if len(kept) > 0 {
				kept = append(kept, ", "...)
			}
			kept = append(kept, name...)
		}
		f.Value = string(kept)
	}
	if r.Fields.Has("Trailer") {
		r.Fields.RemoveFunc(func(f message.Field) bool {
			return message.EqualFold(f.Name, "Trailer") && (f.Value == "" || r.Length == 0)
		})
	}
}

// isForwarding reports whether a field tells an upstream about a request's
// origin or client certificate. All spellings count.
func isForwarding(name string) bool {
	return hasPrefixFold(name, "x-forwarded-") || equalDashed(name, "x-forwarded") || equalDashed(name, "forwarded") ||
		equalDashed(name, "x-real-ip") || hasPrefixFold(name, "x-client-cert")
}

// HeaderRules are changes to a header, applied in this order: remove, set, add.
type HeaderRules struct {
	Remove   []string
	Set, Add []HeaderValue
}

// A HeaderValue is a field's name, and its value for each request.
type HeaderValue struct {
	Name  string
	Value Value
}

// ApplyRequest changes the request for the upstream. It removes and sets fields in
// every spelling: an upstream that reads X_Tenant as X-Tenant must not see the
// client's value besides the gateway's. Names that CheckFieldName rejects are
// skipped.
func (r *HeaderRules) ApplyRequest(f *Facts) {
	fields := &f.Request.Fields
	for _, name := range r.Remove {
		if !IsFraming(name) {
			fields.RemoveFunc(func(f message.Field) bool { return sameSpelled(f.Name, name) })
		}
	}
	for i := range r.Set {
		if set := &r.Set[i]; !IsFraming(set.Name) {
			setSpelled(fields, set.Name, set.Value.Expand(f))
		}
	}
	r.add(fields, f)
}

// ApplyResponse changes the response for the client.
func (r *HeaderRules) ApplyResponse(fields *message.Fields, f *Facts) {
	for _, name := range r.Remove {
		if !IsFraming(name) {
			fields.Remove(name)
		}
	}
	for i := range r.Set {
		if set := &r.Set[i]; !IsFraming(set.Name) {
			fields.Set(set.Name, set.Value.Expand(f))
		}
	}
	r.add(fields, f)
}

func (r *HeaderRules) add(fields *message.Fields, f *Facts) {
	for i := range r.Add {
		if add := &r.Add[i]; !IsFraming(add.Name) {
			fields.Add(add.Name, add.Value.Expand(f))
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

// CheckFieldName returns why a header rule cannot name a field, or nil if it
// can.
func CheckFieldName(name string) error {
	if !message.IsToken(name) {
		return fmt.Errorf("%.100q is not a header's name; write one such as X-Tenant", name)
	}
	if IsFraming(name) {
		return fmt.Errorf("%s frames the message or belongs to one connection, and cannot be changed", name)
	}
	return nil
}

// CheckFieldValue returns why a header rule cannot use a value, or nil if it
// can. The error does not contain the value.
func CheckFieldValue(value string) error {
	if message.ControlByte(value) >= 0 {
		return fmt.Errorf("a header's value cannot have line breaks or other control characters")
	}
	if strings.Trim(value, " \t") != value {
		return fmt.Errorf("a header's value cannot begin or end with a space")
	}
	return nil
}
