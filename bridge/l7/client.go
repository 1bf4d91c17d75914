package l7

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A proxied is what a trusted proxy in front says of a request. The zero proxied
// is what nobody in particular says, who is believed nothing.
type proxied struct {
	trusted bool // the connection is a trusted proxy's

	// chain are the addresses from the client's to that of the last proxy but
	// the one that the connection is from, as X-Forwarded-For has them; "" if
	// that proxy is the client.
	chain string

	authority, host string // that the client asked for, with and without its port; "" if the proxy does not say
	port            string // that the client connected to; "" if the proxy does not say
}

// maxHops bounds how many proxies a client may be behind.
const maxHops = 64

// identify finds out who the client is and by which scheme it came: the
// connection's, unless it is a trusted proxy's, which may say so. It is called
// before the request's claims are removed.
func (x *exchange) identify() {
	x.scheme = "http"
	if x.tls {
		x.scheme = "https"
	}
	trusted := x.table.TrustedProxies
	if trusted == nil || !trusted.Has(x.conn.who.Source) {
		return
	}
	p, f := &x.proxied, x.request.Fields
	p.trusted = true
	x.followForwarded()
	x.scheme = forwardedScheme(f, x.scheme)
	if given, ok := only(f, "X-Forwarded-Host"); ok {
		if host, authority, err := normalAuthority(given); err == nil {
			p.host, p.authority = host, authority
		}
	}
	if given, ok := only(f, "X-Forwarded-Port"); ok {
		if n, err := strconv.ParseUint(given, 10, 16); err == nil && n > 0 && given[0] != '0' && given[0] != '+' {
			p.port = given
		}
	}
}

// forwardedScheme returns the scheme that a proxy says the client came by; own if
// it does not say.
func forwardedScheme(f message.Fields, own string) string {
	switch proto, _ := only(f, "X-Forwarded-Proto"); {
	case message.EqualFold(proto, "http"):
		return "http"
	case message.EqualFold(proto, "https"):
		return "https"
	}
	return own
}

// only returns the value of a field of which there is one, with one value: who is
// to be taken of several, nobody knows.
func only(f message.Fields, name string) (string, bool) {
	value, ok := f.Get(name)
	if !ok || f.Count(name) > 1 {
		return "", false
	}
	for i := range len(value) {
		if value[i] == ',' {
			return "", false
		}
	}
	return value, true
}

// followForwarded follows X-Forwarded-For from its end, where the proxy that the
// connection is from has written whose request it is. While that is a trusted
// proxy's again, what stands before it is that one's word; the first that is not
// is the client, and what it says of itself stays behind. If all are proxies',
// the first is.
//
// An entry that is no address, and a chain that is too long, are not guessed at:
// the client is then the proxy that the connection is from.
func (x *exchange) followForwarded() {
	hops, known := x.hops[:0], true
	f := x.request.Fields
fields:
	for i := len(f) - 1; i >= 0; i-- {
		if !message.EqualFold(f[i].Name, "X-Forwarded-For") {
			continue
		}
		for list := f[i].Value; list != ""; {
			var entry string
			if list, entry = cutLast(list); entry == "" {
				continue // RFC 9110, section 5.6.1: an empty one is none
			}
			addr, ok := parseHop(entry)
			if known = ok && len(hops) < maxHops; !known {
				break fields
			}
			hops = append(hops, addr)
			if !x.table.TrustedProxies.HasAddress(addr) {
				break fields
			}
		}
	}
	x.hops = hops
	if !known || len(hops) == 0 {
		return
	}
	x.addr = hops[len(hops)-1]
	x.client = x.addr.String()
	if x.proxied.chain = x.client; len(hops) > 1 {
		b := append(x.scratch[:0], x.client...)
		for i := len(hops) - 2; i >= 0; i-- {
			b = hops[i].AppendTo(append(b, ", "...))
		}
		x.scratch, x.proxied.chain = b, string(b)
	}
}

// cutLast cuts the last entry off a list, without the blanks around it.
func cutLast(list string) (rest, entry string) {
	at := len(list)
	for at > 0 && list[at-1] != ',' {
		at--
	}
	entry, rest = list[at:], list[:max(at-1, 0)]
	for entry != "" && (entry[0] == ' ' || entry[0] == '\t') {
		entry = entry[1:]
	}
	for entry != "" && (entry[len(entry)-1] == ' ' || entry[len(entry)-1] == '\t') {
		entry = entry[:len(entry)-1]
	}
	return rest, entry
}

// parseHop returns the address of an entry of X-Forwarded-For, which some proxies
// write with a port, and IPv6 in brackets.
func parseHop(s string) (netip.Addr, bool) {
	const longest = len("[0000:0000:0000:0000:0000:ffff:255.255.255.255]:65535")
	if len(s) > longest {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		if n := len(s); n > 2 && s[0] == '[' && s[n-1] == ']' {
			if addr, err = netip.ParseAddr(s[1 : n-1]); err == nil && !addr.Is6() {
				return netip.Addr{}, false
			}
		} else if with, bad := netip.ParseAddrPort(s); bad == nil {
			addr, err = with.Addr(), nil
		}
	}
	return addr.Unmap(), err == nil && addr.Zone() == ""
}

// clientPort is the port that the client's connection is from; "" if it is a
// proxy's, or none.
func (x *exchange) clientPort() string {
	tcp, ok := x.conn.who.Source.(*net.TCPAddr)
	if !ok || x.proxied.chain != "" {
		return ""
	}
	return strconv.Itoa(tcp.Port)
}

// authority is the host that the client asked for, with its port if it gave one.
func (x *exchange) authority() string { return cmp.Or(x.proxied.authority, x.target.authority) }

// port is the port that the client connected to. A proxy that says by which
// scheme the client came, but not by which port, is not on ours: then it is the
// one that the host has, or the scheme.
func (x *exchange) port() string {
	switch {
	case x.proxied.port != "":
		return x.proxied.port
	case !x.proxied.trusted:
		return x.conn.port
	}
	host, authority := x.target.host, x.target.authority
	if x.proxied.host != "" {
		host, authority = x.proxied.host, x.proxied.authority
	}
	switch {
	case len(authority) > len(host):
		return authority[len(host)+1:]
	case x.scheme == "https":
		return "443"
	}
	return "80"
}
