package certs_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// hostileCertificates are certificates that only a hostile peer presents. All
// of them verify against the CA.
func hostileCertificates(t testing.TB) (ca *signer, all map[string]tls.Certificate) {
	t.Helper()
	ca = newSigner(t, func(*x509.Certificate) {})
	both := func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	all = make(map[string]tls.Certificate)
	all["8,000 names"] = leafOf(t, ca.cert, ca.key, func(c *x509.Certificate) {
		both(c)
		c.DNSNames = nil
		for i := range 8000 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("h%d.attacker.test", i))
		}
	})
	all["a certificate of 1 MiB"] = leafOf(t, ca.cert, ca.key, func(c *x509.Certificate) {
		both(c)
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: bytes.Repeat([]byte{5}, 1<<20)}}
	})

	// An RSA key of 16,384 bits has no legitimate use: it is rejected before any
	// verification with it.
	big16k := new(big.Int).Lsh(big.NewInt(1), 16<<10-1)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "big"}, DNSNames: []string{"upstream.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	both(template)
	raw, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &rsa.PublicKey{N: big16k.Add(big16k, big.NewInt(1)), E: 65537}, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	all["a key of 16,384 bits"] = tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: own}

	all["a chain of 100"] = chainOf(t, ca, 100, both)
	return ca, all
}

// chainOf returns a leaf with n certificates in total below the CA.
func chainOf(t testing.TB, ca *signer, n int, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	issuer, key := ca.cert, ca.key
	var between [][]byte
	for i := range n - 1 {
		next, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 10)), Subject: pkix.Name{CommonName: fmt.Sprintf("link %d", i)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}, issuer, next.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if issuer, err = x509.ParseCertificate(raw); err != nil {
			t.Fatal(err)
		}
		key, between = next, append([][]byte{raw}, between...)
	}
	cert := leafOf(t, issuer, key, change)
	cert.Certificate = append(cert.Certificate, between...)
	return cert
}

// hostileReasons are the expected results. An empty reason means that the
// certificate verifies.
var hostileReasons = map[string]certs.Reason{
	"8,000 names":            certs.ReasonNameMismatch,
	"a certificate of 1 MiB": certs.ReasonBadCertificate,
	"a key of 16,384 bits":   certs.ReasonBadCertificate,
	"a chain of 100":         "",
}

// taken returns how much memory was allocated while f ran.
func taken(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

const hostileMemory = 48 << 20

func TestHostileServers(t *testing.T) {
	ca, all := hostileCertificates(t)
	trust := []*certs.TrustBundle{parseTrust(t, ca.pem())}
	depth := uint32(10)
	var sans []certs.SAN
	for i := range 100 {
		sans = append(sans, certs.SAN{Kind: certs.SANDNS, Value: fmt.Sprintf("x%d.test", i)})
	}
	for name, cert := range all {
		t.Run(name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				want := hostileReasons[name]
				s := serveConfig(t, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version})
				o := certs.ClientOptions{ServerName: "upstream.test", Trust: trust, Groups: []tls.CurveID{tls.X25519}}
				check := func(what string, o certs.ClientOptions, want certs.Reason) {
					client := newClient(t, o)
					var err error
					var seen *certs.Observation
					if n := taken(func() { seen, err = observe(t, client, s.addr, "") }); n > hostileMemory {
						t.Errorf("%s: %d bytes were allocated", what, n)
					}
					if seen.Conn != nil {
						seen.Conn.Close()
					}
					if got := certs.Classify(err); got != want {
						t.Fatalf("%s: reason %q, want %q: %v", what, got, want, err)
					}
					if err != nil {
						checkText(t, err.Error())
					}
					if len(seen.Chain) > 20 {
						t.Errorf("%s: a chain of %d is reported", what, len(seen.Chain))
					}
					for _, f := range seen.Failures {
						checkText(t, f.Detail)
					}
				}
				check("by name", o, want)
				o.SubjectAltNames = sans
				if want == "" {
					want = certs.ReasonNameMismatch
				}
				check("by names", o, want)
				o.SubjectAltNames, o.VerifyDepth = nil, &depth
				if name == "a chain of 100" {
					check("by depth", o, certs.ReasonDepthExceeded)
				}
				o.VerifyDepth, o.Trust = nil, []*certs.TrustBundle{certstest.NewCA(t).Trust(t)}
				if want != certs.ReasonBadCertificate {
					want = certs.ReasonUnknownCA
				}
				check("a chain of another CA", o, want)
				o.Verification = certs.VerifyInsecureSkip
				if want != certs.ReasonBadCertificate {
					want = ""
				}
				check("by nothing", o, want)
			})
		})
	}
}

func TestHostileClients(t *testing.T) {
	ca, all := hostileCertificates(t)
	sans := []certs.SAN{{Kind: certs.SANDNS, Value: "upstream.test"}}
	own := certstest.NewCA(t)
	for name, cert := range all {
		t.Run(name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version uint16) {
				server := newServer(t, certs.ServerOptions{
					Certificates: []*certs.Certificate{certstest.Certificate(t, own.Server(t, "front.test"))}, MaxVersion: version,
					ClientAuth: certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{parseTrust(t, ca.pem())},
					ClientSubjectAltNames: sans,
				})
				s := serve(t, server.Conn)
				n := taken(func() {
					raw, err := net.Dial("tcp", s.addr)
					if err != nil {
						t.Fatal(err)
					}
					defer raw.Close()
					raw.SetDeadline(time.Now().Add(time.Minute))
					c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }})
					if c.Handshake() == nil {
						io.Copy(io.Discard, io.LimitReader(c, 1))
					}
				})
				at := <-s.handshakes
				if n > hostileMemory {
					t.Errorf("%d bytes were allocated", n)
				}
				if got := certs.ClassifyAccept(at.err); got != hostileReasons[name] {
					t.Errorf("reason %q, want %q: %v", got, hostileReasons[name], at.err)
				}
				checkText(t, certs.ErrorText(at.err))
			})
		})
	}
}

// The deadline ends the handshake of a peer that sends byte by byte, or sends
// only the beginning of an endless message.
func TestTricklingHandshakes(t *testing.T) {
	ca := certstest.NewCA(t)
	for _, c := range []struct {
		name string
		peer func(c net.Conn, done <-chan struct{})
	}{
		{"byte by byte", func(c net.Conn, done <-chan struct{}) {
			hello := append([]byte{22, 3, 3, 0x3f, 0xff, 2, 0, 0x3f, 0xfb}, make([]byte, 1<<14)...)
			for i := range hello {
				if _, err := c.Write(hello[i : i+1]); err != nil {
					return
				}
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
			}
		}},
		{"ten warnings", func(c net.Conn, done <-chan struct{}) {
			for range 10 {
				c.Write([]byte{21, 3, 3, 0, 2, 1, 90}) // user_canceled
			}
			<-done
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, far := net.Pipe()
			done, ended := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				go io.Copy(io.Discard, far)
				c.peer(far, done)
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			client := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{ca.Trust(t)}})
			seen, err := client.Observe(ctx, near, "")
			wantReason(t, err, certs.ReasonHandshakeTimeout)
			if seen.Conn != nil || len(seen.Chain) > 0 {
				t.Errorf("seen %+v", seen)
			}
			close(done)
			near.Close()
			far.Close()
			<-ended
		})
	}
}

// After the handshake a server keeps sending messages, to keep the client busy.
func TestObserveOfAServerThatNeverStopsSending(t *testing.T) {
	ca := certstest.NewCA(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := tlsConfig(t, ca.Server(t, "upstream.test"))
	config.SessionTicketsDisabled = true
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		raw, err := l.Accept()
		if err != nil {
			return
		}
		defer raw.Close()
		c := tls.Server(raw, config)
		text := strings.Repeat("220 welcome\r\n", 1000)
		for err == nil {
			_, err = io.WriteString(c, text)
		}
	}()
	c := newClient(t, certs.ClientOptions{ServerName: "upstream.test", Trust: []*certs.TrustBundle{ca.Trust(t)}})
	seen, err := observe(t, c, l.Addr().String(), "")
	if err != nil || seen.Alert != nil || seen.TicketOffered {
		t.Errorf("%+v, %v", seen, err)
	}
	if seen.Conn != nil {
		seen.Conn.NetConn().Close()
	}
	l.Close()
	<-ended
}
