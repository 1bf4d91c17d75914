package snapshot

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/probe"
	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	maxServers  = 16               // maximum DNS servers of one upstream
	minRefresh  = time.Second      // minimum time between two lookups
	probeLookup = 10 * time.Second // timeout of the lookup at the start of a probe
)

// dns checks the DNS settings of u, if its endpoints come from DNS. settings are its
// TLS settings; nil means no TLS.
func (s upstreamScope) dns(u, prev *liveUpstream, settings *certs.ClientOptions, protocol backs.Protocol) *upstream.DNSOptions {
	d := u.msg.GetDns()
	q := s.query(d)
	refresh := s.duration("dns.refresh", d.GetRefresh())
	if refresh > 0 && refresh < minRefresh {
		s.Add("dns.refresh", "is %v; it must be at least %v", refresh, minRefresh)
	}
	name := cmp.Or(q.Host, domainOf(q.SRV)) // the targets of SRV records are not known yet
	if settings != nil && name != "" {
		s.clients("dns", *settings, name, protocol, endpointClients{})
	}
	if s.Len() > 0 {
		return nil
	}
	u.name = resolve.NewName(q)
	out := &upstream.DNSOptions{Refresh: refresh, FromHost: settings != nil && settings.FromHost}
	if prev != nil && prev.name != nil && prev.name.Query().Equal(q) {
		u.name = prev.name
	}
	u.endpoint = func(a resolve.Address, before *upstream.Endpoint) (upstream.EndpointOptions, error) {
		o := upstream.EndpointOptions{
			Network: "tcp", Address: a.At.String(),
			Authority: net.JoinHostPort(a.Name, strconv.Itoa(int(a.At.Port()))),
		}
		if settings == nil {
			return o, nil
		}
		var old endpointClients
		if before != nil {
			old = endpointClients{before.Client(upstream.Stream), before.Client(upstream.HTTP)}
		}
		clients, err := newClients(*settings, a.Name, protocol, old)
		o.Stream, o.HTTP = clients.stream, clients.http
		return o, err
	}
	out.Resolver, out.Endpoint = u.name, u.endpoint
	return out
}

// query checks the name to look up and returns the query.
func (s upstreamScope) query(d *adminv1.Dns) resolve.Query {
	q := resolve.Query{
		Host: strings.TrimSuffix(d.GetHostname(), "."), Rooted: strings.HasSuffix(d.GetHostname(), "."),
		Port: uint16(d.GetPort()), SRV: strings.TrimSuffix(d.GetSrv(), "."),
	}
	switch {
	case d.GetHostname() == "" && d.GetSrv() == "":
		s.Add("dns.hostname", "must be set unless srv is")
	case d.GetHostname() != "" && d.GetSrv() != "":
		s.Add("dns.srv", "must be left out where hostname is set: an upstream has either hostname or srv")
	case d.GetHostname() != "":
		if _, err := netip.ParseAddr(d.GetHostname()); err == nil {
			s.Add("dns.hostname", "is the IP address %s; put it in endpoints", d.GetHostname())
		} else if !isHostName(d.GetHostname()) {
			s.Add("dns.hostname", "is %.260q; it must be a DNS name, without a port", d.GetHostname())
		}
		if d.GetPort() < 1 || d.GetPort() > 65535 {
			s.Add("dns.port", "is %d; it must be a number from 1 to 65535", d.GetPort())
		}
	default:
		if !isHostName(d.GetSrv()) {
			s.Add("dns.srv", "is %.260q; it must be the name of SRV records, as in _pay._tcp.example.com", d.GetSrv())
		}
		if d.GetPort() != 0 {
			s.Add("dns.port", "must be left out with srv: the records have ports")
		}
	}
	if n := len(d.GetServers()); n > maxServers {
		s.Add("dns.servers", "has %d servers; it may have at most %d", n, maxServers)
		return q
	}
	for i, server := range d.GetServers() {
		at, ok := serverAddress(server)
		if !ok {
			s.Add(invalid.Path("dns.servers").Index(i), "is %.80q; it must be an IP address, or IP:port", server)
		}
		q.Servers = append(q.Servers, at)
	}
	return q
}

// serverAddress returns the address of a DNS server. The default port is 53.
func serverAddress(text string) (netip.AddrPort, bool) {
	if ip, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(ip, 53), !ip.IsUnspecified()
	}
	at, err := netip.ParseAddrPort(text)
	return at, err == nil && at.Port() != 0 && !at.Addr().IsUnspecified()
}

// domainOf returns the name of SRV records without the service and the protocol.
func domainOf(srv string) string {
	for rest := srv; ; {
		label, after, more := strings.Cut(rest, ".")
		if !strings.HasPrefix(label, "_") {
			return rest
		}
		if !more {
			return srv
		}
		rest = after
	}
}

// newClients returns the TLS clients of an endpoint with the given host. They verify
// the host unless the settings name something else.
func newClients(o certs.ClientOptions, host string, protocol backs.Protocol, before endpointClients) (c endpointClients, err error) {
	if o.ServerName == "" && !o.FromHost {
		o.ServerName = host
	}
	if lacksTrust(&o) {
		return c, errors.New("no trust bundle is available")
	}
	forHTTP := o
	if len(o.NextProtos) == 0 {
		forHTTP.NextProtos = alpn(protocol)
	}
	forHTTP.RequireALPN = protocol == backs.HTTP2
	o.RenegotiateOnce = false // event loops cannot wait for a handshake
	o.Replaces, forHTTP.Replaces = before.stream, before.http
	if c.stream, err = certs.NewClient(o); err != nil {
		return endpointClients{}, err
	}
	c.http, err = certs.NewClient(forHTTP)
	return c, err
}

// lookUp looks up the addresses of an upstream and returns its current endpoints,
// ready to probe with the settings of t. Failed lookups come first.
func (u *liveUpstream) lookUp(ctx context.Context, t probe.Target, streams bool) []Endpoint {
	q := u.name.Query()
	ctx, cancel := context.WithTimeout(ctx, probeLookup)
	defer cancel()
	answer, err := u.name.Ask(ctx)
	t.Network, t.Field, t.AddressField = "tcp", "dns", "dns.hostname"
	if q.SRV != "" {
		t.AddressField = "dns.srv"
	}
	var out []Endpoint
	fail := func(address string, err error) {
		t := t
		t.Field = t.AddressField
		out = append(out, Endpoint{Address: address, Unresolved: err, Target: t})
	}
	if err != nil {
		fail(q.String(), err)
	}
	for _, a := range answer.Addresses {
		t := t
		o, err := u.endpoint(a, nil)
		if err != nil {
			fail(a.At.String(), err)
			continue
		}
		t.Address = o.Address
		if t.Client = u.planned(o.HTTP); streams {
			t.Client = u.planned(o.Stream)
		}
		if t.Host == "" {
			t.Host = a.Name
		}
		out = append(out, Endpoint{Address: o.Address, Target: t})
	}
	return out
}

// reason returns why the upstream takes no traffic, or "" if it takes traffic.
func (u *liveUpstream) reason() (adminv1.Reason, string) {
	switch {
	case u.down != "":
		return adminv1.Reason_REASON_LOCAL_CONFIG, u.down
	case u.name == nil || len(u.live.Endpoints()) > 0:
		return adminv1.Reason_REASON_UNSPECIFIED, ""
	case u.live.DNS().Error != "":
		return adminv1.Reason_REASON_DNS_FAILURE, u.live.DNS().Error
	}
	return adminv1.Reason_REASON_DNS_FAILURE, "DNS has not answered yet"
}
