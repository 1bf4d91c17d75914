package policy

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

func peers(t testing.TB, texts ...string) *cidr.Peers {
	t.Helper()
	p, faults := cidr.ParsePeers(texts)
	if faults != nil {
		t.Fatal(faults)
	}
	return p
}

func addresses(t testing.TB, texts ...string) *cidr.Set {
	t.Helper()
	s, faults := cidr.Parse(texts)
	if faults != nil {
		t.Fatal(faults)
	}
	return s
}

// values parses lines as header rules.
func values(lines ...string) []HeaderValue {
	var out []HeaderValue
	for _, line := range lines {
		name, text, _ := strings.Cut(line, ": ")
		value, err := ParseValue(text, true)
		if err != nil {
			panic(err)
		}
		out = append(out, HeaderValue{name, value})
	}
	return out
}

// fields parses lines as fields.
func fields(lines ...string) message.Fields {
	var f message.Fields
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		f.Add(name, value)
	}
	return f
}

// factsOf returns the facts of a request from a client at an address, before
// policy is applied. The address "" stands for a client of a unix-domain socket.
func factsOf(from string, f message.Fields) *Facts {
	c := &Connection{Source: &net.UnixAddr{Net: "unix"}}
	if from != "" {
		at := netip.MustParseAddrPort(from)
		addr := at.Addr().Unmap()
		c.Source, c.Address, c.Client, c.Port = net.TCPAddrFromAddrPort(at), addr, addr.String(), "8080"
	}
	facts := &Facts{Listener: "front", Target: Target{Host: "a.example", Authority: "a.example", Path: "/"}}
	facts.Begin(&message.Request{Method: "GET", Target: "/", Authority: "a.example", Major: 1, Minor: 1, Fields: f}, c)
	return facts
}
