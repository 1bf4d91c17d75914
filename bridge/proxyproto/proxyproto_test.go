package proxyproto_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
)

func tcp(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

// v2 returns a version 2 header with a command, a family and the rest.
func v2(command, family byte, rest string) string {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n")
	b = append(b, command, family, byte(len(rest)>>8), byte(len(rest)))
	return string(b) + rest
}

const ipv4 = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x30\x39\x01\xbb" // 192.0.2.1:12345 to 198.51.100.2:443

func TestAcceptedHeaders(t *testing.T) {
	ipv6 := "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x02\x30\x39\x01\xbb"
	for name, test := range map[string]struct {
		header, source, destination string
	}{
		"1, IPv4":                           {"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n", "192.0.2.1:12345", "198.51.100.2:443"},
		"1, IPv6":                           {"PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n", "[2001:db8::1]:12345", "[2001:db8::2]:443"},
		"1, unknown":                        {"PROXY UNKNOWN\r\n", "", ""},
		"1, unknown with addresses":         {"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "", ""},
		"2, IPv4":                           {v2(0x21, 0x11, ipv4), "192.0.2.1:12345", "198.51.100.2:443"},
		"2, IPv6":                           {v2(0x21, 0x21, ipv6), "[2001:db8::1]:12345", "[2001:db8::2]:443"},
		"2, with extensions":                {v2(0x21, 0x11, ipv4+"\x04\x00\x03abc"), "192.0.2.1:12345", "198.51.100.2:443"},
		"2, local":                          {v2(0x20, 0x00, ""), "", ""},
		"2, local with addresses":           {v2(0x20, 0x11, ipv4), "", ""},
		"2, local with a malformed address": {v2(0x20, 0x11, "x"), "", ""},
		"2, longest":                        {v2(0x21, 0x11, ipv4+"\x04\x0f\xe1"+strings.Repeat("x", 4065)), "192.0.2.1:12345", "198.51.100.2:443"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, slow := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
				r := strings.NewReader(test.header + "what follows")
				got, err := proxyproto.Read(slow(r))
				if err != nil {
					t.Fatal(err)
				}
				if text(got.Source) != test.source || text(got.Destination) != test.destination {
					t.Errorf("%v to %v, want %s to %s", got.Source, got.Destination, test.source, test.destination)
				}
				if rest, _ := io.ReadAll(r); string(rest) != "what follows" {
					t.Errorf("%q is left", rest)
				}
			}
		})
	}
}

func text(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

func TestRejectedHeaders(t *testing.T) {
	for name, header := range map[string]string{
		"a line without an end":    "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443" + strings.Repeat(" ", 100) + "\r\n",
		"LF alone":                 "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\n\r\n",
		"lower case":               "proxy TCP4 192.0.2.1 198.51.100.2 12345 443\r\n",
		"no addresses":             "PROXY TCP4 \r\n\r\n\r\n",
		"a name":                   "PROXY TCP4 localhost 198.51.100.2 12345 443\r\n",
		"a zone":                   "PROXY TCP6 fe80::1%lo fe80::2 12345 443\r\n",
		"IPv6 for IPv4":            "PROXY TCP4 2001:db8::1 2001:db8::2 12345 443\r\n",
		"too large a port":         "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
		"a signed port":            "PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
		"one port too many":        "PROXY TCP4 192.0.2.1 198.51.100.2 1 443 8\r\n",
		"an unknown protocol":      "PROXY UDP4 192.0.2.1 198.51.100.2 1 443\r\n",
		"2, too short":             v2(0x21, 0x11, ipv4[:11]),
		"2, version 3":             v2(0x31, 0x11, ipv4),
		"2, no such command":       v2(0x22, 0x11, ipv4),
		"2, no such family":        v2(0x21, 0x41, ipv4),
		"2, no such transport":     v2(0x21, 0x13, ipv4),
		"2, a datagram":            v2(0x21, 0x12, ipv4),
		"2, longer than the limit": v2(0x21, 0x11, ipv4+strings.Repeat("x", 5000)),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := proxyproto.Read(strings.NewReader(header)); err == nil {
				t.Errorf("taken: %v", got)
			} else if !errors.Is(err, proxyproto.ErrMalformed) && !errors.Is(err, proxyproto.ErrMissing) {
				t.Error(err)
			}
		})
	}
}

func TestConnectionsWithoutAHeader(t *testing.T) {
	for _, begin := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefg", "hi", "PROX!"} {
		if _, err := proxyproto.Read(strings.NewReader(begin)); !errors.Is(err, proxyproto.ErrMissing) {
			t.Errorf("%q: %v", begin, err)
		}
	}
}

// A truncated header is never accepted.
func TestTruncatedHeaders(t *testing.T) {
	for _, header := range []string{"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n", v2(0x21, 0x11, ipv4+"\x04\x00\x03abc")} {
		for n := range len(header) {
			if got, err := proxyproto.Read(strings.NewReader(header[:n])); err == nil {
				t.Errorf("%q: %v", header[:n], got)
			}
		}
	}
}

func TestWrittenHeaders(t *testing.T) {
	unix := &net.UnixAddr{Net: "unix"}
	for name, test := range map[string]struct {
		version             proxyproto.Version
		source, destination net.Addr
		want                string
	}{
		"no header":              {proxyproto.None, tcp("192.0.2.1:12345"), tcp("198.51.100.2:443"), ""},
		"1":                      {proxyproto.V1, tcp("192.0.2.1:12345"), tcp("198.51.100.2:443"), "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n"},
		"1, IPv6":                {proxyproto.V1, tcp("[2001:db8::1]:12345"), tcp("[2001:db8::2]:443"), "PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n"},
		"1, mixed":               {proxyproto.V1, tcp("192.0.2.1:12345"), tcp("[2001:db8::2]:443"), "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 12345 443\r\n"},
		"1, unix":                {proxyproto.V1, unix, unix, "PROXY UNKNOWN\r\n"},
		"1, no client":           {proxyproto.V1, nil, nil, "PROXY UNKNOWN\r\n"},
		"2":                      {proxyproto.V2, tcp("192.0.2.1:12345"), tcp("198.51.100.2:443"), v2(0x21, 0x11, ipv4)},
		"2, unix":                {proxyproto.V2, unix, tcp("198.51.100.2:443"), v2(0x20, 0, "")},
		"2, no client":           {proxyproto.V2, nil, nil, v2(0x20, 0, "")},
		"2, a port out of range": {proxyproto.V2, &net.TCPAddr{IP: net.IP{192, 0, 2, 1}, Port: 1 << 20}, tcp("198.51.100.2:443"), v2(0x20, 0, "")},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.version.Header(test.source, test.destination); string(got) != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestTrust(t *testing.T) {
	trust, bad := proxyproto.NewTrust([]string{"10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::ffff:198.51.100.1"})
	if bad != nil {
		t.Fatal(bad)
	}
	for addr, want := range map[string]bool{
		"10.1.2.3:1": true, "11.0.0.1:1": false, "192.0.2.1:1": true, "192.0.2.2:1": false,
		"[::ffff:10.1.2.3]:1": true, "[2001:db8::1]:1": true, "[2001:db9::1]:1": false, "198.51.100.1:1": true,
	} {
		if got := trust.Trusts(tcp(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	unix := &net.UnixAddr{Net: "unix"}
	if trust.Trusts(unix) || trust.Trusts(nil) || (*proxyproto.Trust)(nil).Trusts(tcp("10.1.2.3:1")) {
		t.Error("trusts a source that was not named")
	}
	local, bad := proxyproto.NewTrust([]string{proxyproto.FromUnix})
	if bad != nil || !local.Trusts(unix) || local.Trusts(tcp("127.0.0.1:1")) {
		t.Errorf("unix: %v", bad)
	}
}

func TestInvalidSources(t *testing.T) {
	for _, s := range []string{"", "localhost", "10.0.0.1/8", "10.0.0.0/33", "::ffff:10.0.0.0/104", "fe80::1%lo", "10.0.0.0/8 ", "unix"} {
		if _, bad := proxyproto.NewTrust([]string{"10.0.0.0/8", s}); len(bad) != 1 || bad[0].Index != 1 {
			t.Errorf("%q: %v", s, bad)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\nrest", "PROXY UNKNOWN\r\n", "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n",
		v2(0x21, 0x11, ipv4+"\x04\x00\x03abc"), v2(0x20, 0, ""), v2(0x21, 0x31, strings.Repeat("/", 216)), "GET / HTTP/1.1\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		got, err := proxyproto.Read(r)
		taken := len(b) - r.Len()
		if taken > proxyproto.MaxHeader {
			t.Fatalf("%d bytes were read", taken)
		}
		if err != nil {
			return
		}
		if (got.Source == nil) != (got.Destination == nil) {
			t.Fatalf("half of the addresses: %v", got)
		}
		// The header is read correctly for any following bytes and any fragmentation.
		again, err := proxyproto.Read(iotest.OneByteReader(io.MultiReader(bytes.NewReader(b[:taken]), strings.NewReader("\r\n\r\n"))))
		if err != nil || text(again.Source) != text(got.Source) || text(again.Destination) != text(got.Destination) {
			t.Fatalf("%v, then %v, %v", got, again, err)
		}
		if _, ok := got.Source.(*net.TCPAddr); !ok {
			return
		}
		// A written header contains the addresses that were read.
		for _, v := range []proxyproto.Version{proxyproto.V1, proxyproto.V2} {
			passed, err := proxyproto.Read(bytes.NewReader(v.Header(got.Source, got.Destination)))
			if err != nil || text(passed.Source) != text(got.Source) || text(passed.Destination) != text(got.Destination) {
				t.Fatalf("%v was read as %v, %v", got, passed, err)
			}
		}
	})
}
