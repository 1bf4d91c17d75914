package policy

import (
	"net/netip"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// Forwarding chooses the fields that describe the client to an upstream.
type Forwarding int

// The zero Forwarding is SendXForwarded.
const (
	SendXForwarded Forwarding = iota // X-Forwarded-For, -Host, -Port and -Proto
	SendForwarded                    // Forwarded (RFC 7239)
	SendBoth
	SendNoForwarding
)

// SetForwarding adds the fields that describe the request's origin. CleanRequest
// has removed the client's own claims.
func (f *Facts) SetForwarding(how Forwarding) {
	fields := &f.Request.Fields
	if how == SendXForwarded || how == SendBoth {
		if from := f.forwardedFor(); from != "" {
			fields.Add("X-Forwarded-For", from)
		}
		if host := f.Authority(); host != "" {
			fields.Add("X-Forwarded-Host", host)
		}
		if port := f.port(); port != "" {
			fields.Add("X-Forwarded-Port", port)
		}
		fields.Add("X-Forwarded-Proto", f.Scheme)
	}
	if how == SendForwarded || how == SendBoth {
		fields.Add("Forwarded", f.forwarded())
	}
}

// forwardedFor returns the addresses of the client and of the proxies that the
// request passed, the nearest last; "" if no address is known. Claims of the
// client itself are not included.
func (f *Facts) forwardedFor() string {
	chain, peer := f.claims.chain, f.Connection.Client
	switch {
	case chain == "":
		return peer
	case peer == "":
		return chain
	}
	b := append(append(append(f.scratch[:0], chain...), ", "...), peer...)
	f.scratch = b
	return string(b)
}

// forwarded returns these addresses as the value of a Forwarded field, with the
// requested host and scheme.
func (f *Facts) forwarded() string {
	b := f.scratch[:0]
	if f.Client != "" {
		b = append(appendNode(append(b, "for="...), f.Address), ';')
	}
	if host := f.Authority(); host != "" {
		b = append(appendQuoted(append(b, "host="...), host), ';')
	}
	b = append(append(b, "proto="...), f.Scheme...)
	if f.claims.chain != "" {
		for i := len(f.hops) - 2; i >= 0; i-- {
			b = appendNode(append(b, ", for="...), f.hops[i])
		}
		if f.Connection.Client != "" {
			b = appendNode(append(b, ", for="...), f.Connection.Address)
		}
	}
	f.scratch = b
	return string(b)
}

// appendNode appends an address in the form of RFC 7239, section 6.
func appendNode(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		return a.AppendTo(b)
	}
	return append(a.AppendTo(append(b, `"[`...)), `]"`...)
}

// appendQuoted appends a host, in quotes unless it is a token: a port or an IPv6
// address needs them. A host has no character that would end the quotes.
func appendQuoted(b []byte, host string) []byte {
	if message.IsToken(host) {
		return append(b, host...)
	}
	return append(append(append(b, '"'), host...), '"')
}
