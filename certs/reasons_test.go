package certs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// Each case changes one thing between a compatible server and client.
func TestHandshakeReasons(t *testing.T) {
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	hour, year := time.Hour, 365*24*time.Hour
	now := time.Now()
	names := []string{"upstream.test"}

	type peers struct {
		server *tls.Config
		client *certs.ClientOptions
	}
	cases := []struct {
		name   string
		change func(t *testing.T, p peers)
		want   certs.Reason // "" for no failure
		detail string       // part of the error's text
		only   uint16       // the TLS version of the case; 0 for both
	}{
		{name: "nothing changed", change: func(*testing.T, peers) {}},
		{
			name:   "a CA that is not trusted",
			change: func(t *testing.T, p peers) { p.client.Trust = []*certs.TrustBundle{other.Trust(t)} },
			want:   certs.ReasonUnknownCA, detail: "test root of",
		},
		{
			name: "expired",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(t, ca, pki.LeafOptions{DNSNames: names, NotBefore: now.Add(-2 * hour), NotAfter: now.Add(-hour)})
			},
			want: certs.ReasonExpired, detail: "expired on",
		},
		{
			name: "not valid yet",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(t, ca, pki.LeafOptions{DNSNames: names, NotBefore: now.Add(hour), NotAfter: now.Add(year)})
			},
			want: certs.ReasonNotYetValid, detail: "not valid before",
		},
		{
			name: "an expired intermediate",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(t, intermediate(t, ca, now.Add(-2*hour), now.Add(-hour)), pki.LeafOptions{DNSNames: names, NotAfter: now.Add(hour)})
			},
			want: certs.ReasonExpired, detail: "intermediate",
		},
		{
			name: "an intermediate not valid yet",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(t, intermediate(t, ca, now.Add(hour), now.Add(year)), pki.LeafOptions{DNSNames: names, NotAfter: now.Add(year)})
			},
			want: certs.ReasonNotYetValid, detail: "intermediate",
		},
		{
			name: "another name",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(t, ca, pki.LeafOptions{DNSNames: []string{"b.test", "c.test"}})
			},
			want: certs.ReasonNameMismatch, detail: `for DNS:b.test, DNS:c.test, not for "upstream.test"`,
		},
		{
			name:   "an address that no SAN contains",
			change: func(_ *testing.T, p peers) { p.client.ServerName = "127.0.0.1" },
			want:   certs.ReasonNameMismatch, detail: `not for "127.0.0.1"`,
		},
		{
			name: "a certificate for clients",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = leaf(t, ca, pki.LeafOptions{Usage: pki.Client, DNSNames: names})
			},
			want: certs.ReasonWrongKeyUsage, detail: "only for clientAuth",
		},
		{
			name: "revoked",
			change: func(t *testing.T, p peers) {
				issued := ca.Server(t, names...)
				p.server.Certificates[0] = certstest.TLS(t, issued)
				p.client.Trust = []*certs.TrustBundle{ca.TrustCRLs(t, ca.CRL(t, issued.Leaf))}
			},
			want: certs.ReasonRevoked, detail: "was revoked by",
		},
		{
			name: "no revocation list of the issuer",
			change: func(t *testing.T, p peers) {
				p.client.Trust = []*certs.TrustBundle{ca.TrustCRLs(t, ca.Intermediate(t).CRL(t))}
			},
			want: certs.ReasonCRLExpired, detail: "none of its issuer",
		},
		{
			name:   "a key that is not pinned",
			change: func(_ *testing.T, p peers) { p.client.Pins = [][32]byte{{1}} },
			want:   certs.ReasonPinMismatch, detail: "is pinned",
		},
		{
			name: "a chain that is too long",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = certstest.TLS(t, ca.Intermediate(t).Server(t, names...))
				p.client.VerifyDepth = new(uint32)
			},
			want: certs.ReasonDepthExceeded, detail: "1 intermediate",
		},
		{
			name: "an unknown critical extension",
			change: func(t *testing.T, p peers) {
				p.server.Certificates[0] = selfSigned(t, func(c *x509.Certificate) {
					c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
				})
			},
			want: certs.ReasonBadCertificate,
		},
		{
			name:   "no client certificate",
			change: func(_ *testing.T, p peers) { p.client.Certificate = nil },
			want:   certs.ReasonClientCertificateRequired,
		},
		{
			name: "a client certificate of another CA",
			change: func(t *testing.T, p peers) {
				p.client.Certificate = certstest.Certificate(t, other.Client(t, "stranger"))
			},
			want: certs.ReasonClientCertificateRejected,
		},
		{
			name: "an expired client certificate",
			change: func(t *testing.T, p peers) {
				p.client.Certificate = certstest.Certificate(t, ca.Leaf(t, pki.LeafOptions{
					Usage: pki.Client, CommonName: "late", NotBefore: now.Add(-2 * hour), NotAfter: now.Add(-hour)}))
			},
			want: certs.ReasonClientCertificateRejected,
		},
		{
			name: "a server that does not know the name",
			change: func(_ *testing.T, p peers) {
				p.server.Certificates = nil
				p.server.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
			},
			want: certs.ReasonUnrecognizedName,
		},
		{
			name: "a server that is too old",
			change: func(_ *testing.T, p peers) {
				p.server.MaxVersion = p.client.MinVersion - 1
			},
			want: certs.ReasonProtocolVersion,
		},
		{
			name:   "a server that is too new",
			change: func(_ *testing.T, p peers) { p.server.MinVersion = tls.VersionTLS13 },
			want:   certs.ReasonProtocolVersion, only: tls.VersionTLS12,
		},
		{
			name: "no cipher suite in common",
			change: func(_ *testing.T, p peers) {
				p.client.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
				p.server.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
			},
			want: certs.ReasonNoCommonCipher, only: tls.VersionTLS12, detail: "the alert does not say what is missing",
		},
		{
			name: "no group in common",
			change: func(_ *testing.T, p peers) {
				p.client.Groups = []tls.CurveID{tls.CurveP521}
				p.server.CurvePreferences = []tls.CurveID{tls.X25519}
			},
			want: certs.ReasonNoCommonGroup,
		},
		{
			name: "no protocol in common",
			change: func(_ *testing.T, p peers) {
				p.client.NextProtos, p.server.NextProtos = []string{"h2"}, []string{"smtp"}
			},
			want: certs.ReasonALPNMismatch,
		},
		{
			name: "no protocol, although one is required",
			change: func(_ *testing.T, p peers) {
				p.client.NextProtos, p.client.RequireALPN = []string{"h2"}, true
			},
			want: certs.ReasonALPNMismatch, detail: "h2",
		},
		{
			name: "no protocol, and none is required",
			change: func(_ *testing.T, p peers) {
				p.client.NextProtos = []string{"h2"}
			},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				if c.only != 0 && c.only != version {
					t.Skip("this version does not negotiate it")
				}
				server, o := mutual(t, ca)
				o.MinVersion, o.MaxVersion = version, version
				c.change(t, peers{server, &o})
				s := serveConfig(t, server)
				_, err := connect(t, newClient(t, o), s.addr)
				if c.want == "" {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				wantReason(t, err, c.want)
				if !strings.Contains(err.Error(), c.detail) {
					t.Errorf("error %q does not say %q", err, c.detail)
				}
			})
		})
	}
}

func intermediate(t *testing.T, ca *certstest.CA, from, to time.Time) *certstest.CA {
	t.Helper()
	below, err := ca.NewIntermediate(pki.CAOptions{NotBefore: from, NotAfter: to})
	if err != nil {
		t.Fatal(err)
	}
	return &certstest.CA{CA: below}
}

// selfSigned makes a certificate for upstream.test of a kind that pki cannot
// make.
func selfSigned(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "self-signed"},
		DNSNames:     []string{"upstream.test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}
}

// A handshake fails with a reason if the peer does not speak TLS or ends the
// handshake.
func TestReasonsOfPeersWithoutTLS(t *testing.T) {
	cases := []struct {
		name string
		peer func(conn *net.TCPConn)
		want certs.Reason
	}{
		{"sends HTTP immediately", func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); io.Copy(io.Discard, c) }, certs.ReasonNotTLS},
		{"speaks SMTP", func(c *net.TCPConn) { io.WriteString(c, "220 mail.test ESMTP\r\n"); io.Copy(io.Discard, c) }, certs.ReasonNotTLS},
		{"closes", func(c *net.TCPConn) { c.Read(make([]byte, 1)); c.CloseWrite(); io.Copy(io.Discard, c) }, certs.ReasonPeerClosed},
		{"resets", func(c *net.TCPConn) { c.Read(make([]byte, 1)); c.SetLinger(0) }, certs.ReasonPeerClosed},
		{"sends half a record", func(c *net.TCPConn) { c.Write([]byte{22, 3, 3, 0, 80, 2}); c.CloseWrite(); io.Copy(io.Discard, c) }, certs.ReasonPeerClosed},
		{"says nothing", func(c *net.TCPConn) { io.Copy(io.Discard, c) }, certs.ReasonHandshakeTimeout},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				if conn, err := l.Accept(); err == nil {
					c.peer(conn.(*net.TCPConn))
					conn.Close()
				}
			}()
			raw, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			timeout := time.Minute
			if c.want == certs.ReasonHandshakeTimeout {
				timeout = 20 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			client := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{certstest.NewCA(t).Trust(t)}})
			_, err = client.Handshake(ctx, raw)
			wantReason(t, err, c.want)

			// The caller still owns the connection, which is open.
			if err := raw.SetDeadline(time.Time{}); err != nil {
				t.Errorf("the connection was closed: %v", err)
			}
			raw.Close()
			<-done
		})
	}
}

func TestHandshakeEndsWithItsContext(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		far.Read(make([]byte, 1)) // the client has begun to send
		cancel()
	}()
	client := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{certstest.NewCA(t).Trust(t)}})
	_, err := client.Handshake(ctx, near)
	wantReason(t, err, certs.ReasonOther)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v is not context.Canceled", err)
	}

	_, err = client.Handshake(ctx, near) // the context ended before the handshake began
	wantReason(t, err, certs.ReasonOther)
}

func TestClassifyDials(t *testing.T) {
	dial := func(network, address string, ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			conn.Close()
			t.Fatalf("%s could be dialed", address)
		}
		return err
	}
	free := sockettest.Free(t)
	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	op := func(name string, err error) error { return &net.OpError{Op: name, Net: "tcp", Err: err} }
	errno := func(name string, e syscall.Errno) error { return op(name, os.NewSyscallError("connect", e)) }
	for _, c := range []struct {
		name string
		err  error
		want certs.Reason
	}{
		{"nil", nil, ""},
		{"a port without a listener", dial("tcp", free, t.Context()), certs.ReasonConnectRefused},
		{"a missing unix socket", dial("unix", filepath.Join(dir, "no.sock"), t.Context()), certs.ReasonConnectRefused},
		{"a file that is not a socket", dial("unix", filepath.Join(dir, "file"), t.Context()), certs.ReasonConnectRefused},
		{"a deadline that passed", dial("tcp", free, late), certs.ReasonConnectTimeout},
		{"a bare deadline", context.DeadlineExceeded, certs.ReasonConnectTimeout},
		{"a read past its deadline", op("read", os.ErrDeadlineExceeded), certs.ReasonHandshakeTimeout},
		{"a handshake past its deadline", &certs.HandshakeError{Reason: certs.ReasonHandshakeTimeout, Err: context.DeadlineExceeded}, certs.ReasonHandshakeTimeout},
		{"a kernel timeout", errno("dial", syscall.ETIMEDOUT), certs.ReasonConnectTimeout},
		{"no route to the host", errno("dial", syscall.EHOSTUNREACH), certs.ReasonUnreachable},
		{"network unreachable", errno("dial", syscall.ENETUNREACH), certs.ReasonUnreachable},
		{"an unavailable address", errno("dial", syscall.EADDRNOTAVAIL), certs.ReasonUnreachable},
		{"a socket that may not be opened", errno("dial", syscall.EACCES), certs.ReasonLocalConfig},
		{"no file descriptors", errno("dial", syscall.EMFILE), certs.ReasonLocalConfig},
		{"an unknown name", op("dial", &net.DNSError{Err: "no such host", IsNotFound: true}), certs.ReasonDNSFailure},
		{"a resolver that does not answer", op("dial", &net.DNSError{Err: "i/o timeout", IsTimeout: true}), certs.ReasonDNSFailure},
		{"an address without a port", dial("tcp", "127.0.0.1", t.Context()), certs.ReasonLocalConfig},
		{"a reset", errno("read", syscall.ECONNRESET), certs.ReasonPeerClosed},
		{"an end of the stream", io.EOF, certs.ReasonPeerClosed},
		{"our own check, wrapped", fmt.Errorf("upstream x: %w", &certs.VerifyError{Reason: certs.ReasonPinMismatch}), certs.ReasonPinMismatch},
		{"faults", certs.Faults{{Problem: "x"}}, certs.ReasonLocalConfig},
		{"joined errors", errors.Join(errors.New("x"), errno("dial", syscall.ECONNREFUSED)), certs.ReasonConnectRefused},
		{"a name checked by crypto/x509", &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: new(x509.Certificate)}}, certs.ReasonNameMismatch},
		{"an unknown error", errors.New("x"), certs.ReasonOther},
		{"a text that only resembles one of crypto/tls", errors.New("no certificates configured"), certs.ReasonOther},
	} {
		if got := certs.Classify(c.err); got != c.want {
			t.Errorf("%s: reason %q, want %q (%v)", c.name, got, c.want, c.err)
		}
	}
}

// A remote alert has an unexported type of crypto/tls; it must not be confused
// with a local one.
func TestClassifyKnowsOnlyRemoteAlerts(t *testing.T) {
	local := &net.OpError{Op: "local error", Err: tls.AlertError(116)}
	if got := certs.Classify(local); got != certs.ReasonOther {
		t.Errorf("local alert: %s", got)
	}
	remote := &net.OpError{Op: "remote error", Err: tls.AlertError(116)}
	if got := certs.Classify(remote); got != certs.ReasonClientCertificateRequired {
		t.Errorf("remote alert: %s", got)
	}
}

// The API and this package have the same reasons.
func TestReasonsMatchTheAPI(t *testing.T) {
	find := func(file, pattern string) []string {
		text, err := os.ReadFile(filepath.FromSlash(file))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
		return names
	}
	api := find("../proto/drawbridge/admin/v1/reason.proto", `(?m)^\s*REASON_(\w+) = [1-9]`)
	here := find("reason.go", `Reason = "(\w+)"`)
	if len(api) == 0 || !slices.Equal(api, here) {
		t.Errorf("the API has %v, here are %v", api, here)
	}
}
