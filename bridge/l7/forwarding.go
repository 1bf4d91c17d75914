package l7

import (
	"net/netip"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A Forwarding is a choice of fields that tell an upstream of the client.
type Forwarding int

// The zero Forwarding is TellXForwarded.
const (
	TellXForwarded Forwarding = iota // X-Forwarded-For, -Host, -Port and -Proto
	TellForwarded                    // Forwarded (RFC 7239)
	TellBoth
	TellNothing
)

// setForwarding adds what the gateway knows of where the request comes from.
// What clients say of it is gone by then.
func (x *exchange) setForwarding() {
	f, how := &x.request.Fields, x.table.Forwarding
	if how == TellXForwarded || how == TellBoth {
		if from := x.forwardedFor(); from != "" {
			f.Add("X-Forwarded-For", from)
		}
		if host := x.authority(); host != "" {
			f.Add("X-Forwarded-Host", host)
		}
		if port := x.port(); port != "" {
			f.Add("X-Forwarded-Port", port)
		}
		f.Add("X-Forwarded-Proto", x.scheme)
	}
	if how == TellForwarded || how == TellBoth {
		f.Add("Forwarded", x.forwarded())
	}
}

// forwardedFor is the client's address and those of the proxies that it is
// behind, the nearest last; "" if none has one. The first is the client that is
// believed in: what it said of itself is not among them.
func (x *exchange) forwardedFor() string {
	chain, peer := x.proxied.chain, x.conn.client
	switch {
	case chain == "":
		return peer
	case peer == "":
		return chain
	}
	b := append(append(append(x.scratch[:0], chain...), ", "...), peer...)
	x.scratch = b
	return string(b)
}

// forwarded is the same as Forwarded has it, with the host and scheme that the
// client asked for.
func (x *exchange) forwarded() string {
	b := x.scratch[:0]
	if x.client != "" {
		b = append(appendNode(append(b, "for="...), x.addr), ';')
	}
	if host := x.authority(); host != "" {
		b = append(appendQuoted(append(b, "host="...), host), ';')
	}
	b = append(append(b, "proto="...), x.scheme...)
	if x.proxied.chain != "" {
		for i := len(x.hops) - 2; i >= 0; i-- {
			b = appendNode(append(b, ", for="...), x.hops[i])
		}
		if x.conn.client != "" {
			b = appendNode(append(b, ", for="...), x.conn.addr)
		}
	}
	x.scratch = b
	return string(b)
}

// appendNode appends an address as RFC 7239, section 6 has it.
func appendNode(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		return a.AppendTo(b)
	}
	return append(a.AppendTo(append(b, `"[`...)), `]"`...)
}

// appendQuoted appends a host, in quotes if it is no token: one that has a port,
// or is IPv6. It has nothing that would end them.
func appendQuoted(b []byte, host string) []byte {
	if message.IsToken(host) {
		return append(b, host...)
	}
	return append(append(append(b, '"'), host...), '"')
}
