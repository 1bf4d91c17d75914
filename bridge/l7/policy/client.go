package policy

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// claims are what a trusted proxy in front of the gateway says about a request.
// The zero claims are those of a peer that is not trusted.
type claims struct {
	trusted bool // the connection is a trusted proxy's

	// chain lists the addresses from the client to the proxy before the peer, in
	// the form of X-Forwarded-For; "" if the peer itself is the client.
	chain string

	authority, host string // the requested host, with and without its port; "" if the proxy does not say
	port            string // the port that the client connected to; "" if the proxy does not say
}

// maxHops bounds how many proxies X-Forwarded-For may list.
const maxHops = 64

// Identify determines the client and the scheme of the request. They are taken
// from the connection, unless the peer is a trusted proxy that names others.
// Call it before CleanRequest, which removes the fields of proxies.
func (f *Facts) Identify(trusted *cidr.Peers) {
	f.Scheme = "http"
	if f.Connection.TLS {
		f.Scheme = "https"
	}
	if trusted == nil || !trusted.Has(f.Connection.Source) {
		return
	}
	c, fields := &f.claims, f.Request.Fields
	c.trusted = true
	f.followForwarded(trusted)
	f.Scheme = ForwardedScheme(fields, f.Scheme)
	if given, ok := only(fields, "X-Forwarded-Host"); ok {
		if host, authority, err := normalAuthority(given); err == nil {
			c.host, c.authority = host, authority
		}
	}
	if given, ok := only(fields, "X-Forwarded-Port"); ok {
		if n, err := strconv.ParseUint(given, 10, 16); err == nil && n > 0 && given[0] != '0' && given[0] != '+' {
			c.port = given
		}
	}
}

// ForwardedScheme returns the scheme that a proxy says the client used; own if it
// does not say.
func ForwardedScheme(f message.Fields, own string) string {
	switch proto, _ := only(f, "X-Forwarded-Proto"); {
	case message.EqualFold(proto, "http"):
		return "http"
	case message.EqualFold(proto, "https"):
		return "https"
	}
	return own
}

// only returns the value of a field that occurs once and has one value. With
// several values, it is unclear which one to trust.
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

// followForwarded walks X-Forwarded-For from its end, where the peer wrote the
// address of its own client. As long as an entry is a trusted proxy, that proxy
// wrote the entry before it. The first entry that is not trusted is the client.
// The client itself claimed the entries before that, so they are ignored. If all
// entries are trusted proxies, the first one is the client.
//
// If an entry is not an address, or the chain is too long, the peer counts as
// the client.
func (f *Facts) followForwarded(trusted *cidr.Peers) {
	hops, known := f.hops[:0], true
	fields := f.Request.Fields
fields:
	for i := len(fields) - 1; i >= 0; i-- {
		if !message.EqualFold(fields[i].Name, "X-Forwarded-For") {
			continue
		}
		for list := fields[i].Value; list != ""; {
			var entry string
			if list, entry = cutLast(list); entry == "" {
				continue // RFC 9110, section 5.6.1, ignores empty elements
			}
			addr, ok := parseHop(entry)
			if known = ok && len(hops) < maxHops; !known {
				break fields
			}
			hops = append(hops, addr)
			if !trusted.HasAddress(addr) {
				break fields
			}
		}
	}
	f.hops = hops
	if !known || len(hops) == 0 {
		return
	}
	f.Address = hops[len(hops)-1]
	f.Client = f.Address.String()
	if f.claims.chain = f.Client; len(hops) > 1 {
		b := append(f.scratch[:0], f.Client...)
		for i := len(hops) - 2; i >= 0; i-- {
			b = hops[i].AppendTo(append(b, ", "...))
		}
		f.scratch, f.claims.chain = b, string(b)
	}
}

// cutLast cuts the last entry off a list and trims the blanks around it.
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

// parseHop returns the address in an entry of X-Forwarded-For. Some proxies write
// it with a port, or IPv6 in brackets.
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

// clientPort returns the port that the client's connection comes from; "" if the
// connection is a proxy's, or has no port.
func (f *Facts) clientPort() string {
	tcp, ok := f.Connection.Source.(*net.TCPAddr)
	if !ok || f.claims.chain != "" {
		return ""
	}
	return strconv.Itoa(tcp.Port)
}

// port returns the port that the client connected to. A trusted proxy listens on
// a port of its own, not on ours: if the proxy does not name that port, port
// returns the port in the requested host, or the scheme's default.
func (f *Facts) port() string {
	switch {
	case f.claims.port != "":
		return f.claims.port
	case !f.claims.trusted:
		return f.Connection.Port
	}
	host, authority := f.Host(), f.Authority()
	switch {
	case len(authority) > len(host):
		return authority[len(host)+1:]
	case f.Scheme == "https":
		return "443"
	}
	return "80"
}
