package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/guard"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewRoot(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *pki.CA, o pki.LeafOptions) *pki.Issued {
	t.Helper()
	issued, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func writeFile(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func tcpOptions(t *testing.T, ca *pki.CA) TCPOptions {
	server := issue(t, ca, pki.LeafOptions{Usage: pki.Server, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	return TCPOptions{
		Address:      "127.0.0.1:0",
		CertFile:     writeFile(t, "server.pem", server.ChainPEM),
		KeyFile:      writeFile(t, "server.key", server.KeyPEM),
		ClientCAFile: writeFile(t, "ca.pem", ca.RootPEM()),
		Limits:       guard.Options{Connections: 16},
	}
}

// overTCP also serves on TCP. It returns a function that makes a call with the
// given credentials, and the server's address.
func overTCP(t *testing.T, r *running, ca *pki.CA) (call func(credentials.TransportCredentials) error, addr string) {
	t.Helper()
	lis, err := ListenTCP(tcpOptions(t, ca))
	if err != nil {
		t.Fatal(err)
	}
	r.alsoServe(t, lis)
	return func(creds credentials.TransportCredentials) error {
		conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = adminv1.NewAdminServiceClient(conn).PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream("payments")})
		return err
	}, lis.Addr().String()
}

// dialTCP returns a client with a certificate of the CA. The test closes it at its end.
func dialTCP(t *testing.T, address string, ca *pki.CA, o pki.LeafOptions) *grpc.ClientConn {
	t.Helper()
	o.Usage = pki.Client
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(clientTLS(t, ca, issue(t, ca, o)))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func clientTLS(t *testing.T, ca *pki.CA, present ...*pki.Issued) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	cfg := &tls.Config{RootCAs: roots}
	for _, p := range present {
		pair, err := tls.X509KeyPair(p.ChainPEM, p.KeyPEM)
		if err != nil {
			t.Fatal(err)
		}
		// The client ignores the list of CAs in the server's request.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return cfg
}

func TestTCPAdmitsVerifiedClientCertificatesOnly(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	client := pki.LeafOptions{Usage: pki.Client, CommonName: "ops"}
	serverOnly := issue(t, ca, pki.LeafOptions{Usage: pki.Server, DNSNames: []string{"ops"}})
	expired := issue(t, ca, pki.LeafOptions{Usage: pki.Client, CommonName: "ops", NotBefore: time.Now().Add(-2 * time.Minute), NotAfter: time.Now().Add(-time.Minute)})
	old := clientTLS(t, ca, issue(t, ca, client))
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for _, tt := range []struct {
		name  string
		creds credentials.TransportCredentials
		ok    bool
	}{
		{"a client certificate of the CA", credentials.NewTLS(clientTLS(t, ca, issue(t, ca, client))), true},
		{"no client certificate", credentials.NewTLS(clientTLS(t, ca)), false},
		{"a client certificate of another CA", credentials.NewTLS(clientTLS(t, ca, issue(t, other, client))), false},
		{"a server's certificate", credentials.NewTLS(clientTLS(t, ca, serverOnly)), false},
		{"an expired certificate", credentials.NewTLS(clientTLS(t, ca, expired)), false},
		{"TLS 1.1", credentials.NewTLS(old), false},
		{"plaintext", insecure.NewCredentials(), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t)
			call, _ := overTCP(t, r, ca)
			err := call(tt.creds)
			if tt.ok {
				if err != nil {
					t.Fatal(err)
				}
				if log := r.log.String(); !strings.Contains(log, "client=cert:CN=ops") {
					t.Errorf("the log does not name the caller:\n%s", log)
				}
				return
			}
			wantCode(t, err, codes.Unavailable)
			if r.gateway.State().Revision() != 0 {
				t.Error("it was admitted")
			}
		})
	}
}

// After the files are read again, the server verifies callers with the new
// certificates, even callers with an older session ticket. Invalid files change
// nothing.
func TestTheFilesOfTheListenerAreReadAgain(t *testing.T) {
	ca, next := newCA(t), newCA(t)
	r := start(t)
	o := tcpOptions(t, ca)
	lis, err := ListenTCP(o)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(lis) }()
	defer func() {
		r.Shutdown(context.Background())
		<-served
	}()
	sessions := tls.NewLRUClientSessionCache(8)
	client := issue(t, ca, pki.LeafOptions{Usage: pki.Client, CommonName: "ops"})
	get := func() (serial string, err error) {
		cfg := clientTLS(t, ca, client)
		cfg.NextProtos, cfg.ClientSessionCache = []string{"h2"}, sessions
		conn, err := tls.Dial("tcp", lis.Addr().String(), cfg)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		// The server's first frame: by then it has verified the client.
		if _, err := conn.Read(make([]byte, 9)); err != nil {
			return "", err
		}
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
	}
	first, err := get()
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := lis.Reload(); changed || err != nil {
		t.Errorf("the same files: %v, %v", changed, err)
	}
	replace := func(file string, text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	renewed := issue(t, ca, pki.LeafOptions{Usage: pki.Server, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	replace(o.CertFile, renewed.ChainPEM)
	if _, err := lis.Reload(); err == nil || !strings.Contains(err.Error(), "key file "+o.KeyFile) {
		t.Errorf("a certificate without its key: %v", err)
	}
	if again, err := get(); again != first || err != nil {
		t.Errorf("after the rejected files: %s, %v", again, err)
	}
	replace(o.KeyFile, renewed.KeyPEM)
	if changed, err := lis.Reload(); !changed || err != nil {
		t.Errorf("renewed: %v, %v", changed, err)
	}
	if now, err := get(); now == first || err != nil {
		t.Errorf("still %s, %v", now, err)
	}
	replace(o.ClientCAFile, next.RootPEM())
	if _, err := lis.Reload(); err != nil {
		t.Error(err)
	}
	if _, err := get(); err == nil {
		t.Error("a client of the CA that is no longer trusted is admitted")
	}
}

func TestACallerMustHaveAnAllowedNameAndNotBeRevoked(t *testing.T) {
	ca := newCA(t)
	named := issue(t, ca, pki.LeafOptions{Usage: pki.Client, DNSNames: []string{"ops.example"}})
	o := tcpOptions(t, ca)
	o.ClientNames = []string{"DNS:ops.example"}
	for _, tt := range []struct {
		client *pki.Issued
		crl    []byte
		ok     bool
	}{
		{named, nil, true},
		{issue(t, ca, pki.LeafOptions{Usage: pki.Client, DNSNames: []string{"dev.example"}}), nil, false},
	} {
		lis, err := ListenTCP(o)
		if err != nil {
			t.Fatal(err)
		}
		r := start(t)
		served := make(chan error, 1)
		go func() { served <- r.Serve(lis) }()
		conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(clientTLS(t, ca, tt.client))))
		if err != nil {
			t.Fatal(err)
		}
		_, err = adminv1.NewStatusServiceClient(conn).GetStatus(t.Context(), &adminv1.GetStatusRequest{})
		if (err == nil) != tt.ok {
			t.Errorf("admitted %v: %v", !tt.ok, err)
		}
		conn.Close()
		r.Shutdown(context.Background())
		<-served
	}
	o.ClientNames = []string{"IP:ops.example"}
	if _, err := ListenTCP(o); err == nil {
		t.Error("a name that is not an address was accepted")
	}
	o.ClientNames, o.ClientCRLFile = nil, o.CertFile
	if _, err := ListenTCP(o); err == nil || !strings.Contains(err.Error(), "client CRL file "+o.CertFile) {
		t.Errorf("an invalid revocation list: %v", err)
	}
}

// On a busy machine, a write may time out after it has used its record's sequence
// number. The client must see the end of the connection, not a record that looks
// forged.
func TestAClientSeesATimeoutAsTheEndOfTheConnection(t *testing.T) {
	ca := newCA(t)
	lis, err := ListenTCP(tcpOptions(t, ca))
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	raw, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	config := clientTLS(t, ca, issue(t, ca, pki.LeafOptions{Usage: pki.Client, CommonName: "ops"}))
	config.ServerName = "127.0.0.1"
	client := tls.Client(raw, config)
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }()
	c, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.(*tcpConn).handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.SetWriteDeadline(time.Unix(1, 0))
	if _, err := c.Write([]byte("settings")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("err = %v", err)
	}
	c.Close()
	raw.SetDeadline(time.Now().Add(time.Minute))
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client read: %v", err)
	}
}

func TestAPlainTCPListenerRejectsEveryClient(t *testing.T) {
	r := start(t)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(lis) }()
	defer func() {
		r.Shutdown(context.Background())
		<-served
	}()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = adminv1.NewStatusServiceClient(conn).GetStatus(t.Context(), &adminv1.GetStatusRequest{})
	wantCode(t, err, codes.Unavailable)
}

func TestListenTCPNeedsThreeGoodFiles(t *testing.T) {
	ca := newCA(t)
	leaf := issue(t, ca, pki.LeafOptions{Usage: pki.Server, DNSNames: []string{"x"}})
	garbage := writeFile(t, "garbage", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	empty := writeFile(t, "empty", nil)
	half := writeFile(t, "half", append(ca.RootPEM(), "-----BEGIN CERTIFICATE-----\nno base64"...))
	oldCA, err := pki.NewRoot(pki.CAOptions{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(*TCPOptions)
		want []string
	}{
		{"no file is named", func(o *TCPOptions) { o.CertFile, o.KeyFile, o.ClientCAFile = "", "", "" },
			[]string{"a certificate file is needed", "a key file is needed", "a client CA file is needed"}},
		{"no client CA is named", func(o *TCPOptions) { o.ClientCAFile = "" }, []string{"a client CA file is needed"}},
		{"files are missing", func(o *TCPOptions) { o.CertFile, o.ClientCAFile = "/no/cert", "/no/ca" }, []string{"/no/cert", "/no/ca"}},
		{"the certificate is garbage", func(o *TCPOptions) { o.CertFile = garbage }, []string{"certificate file " + garbage}},
		{"the key is empty", func(o *TCPOptions) { o.KeyFile = empty }, []string{"key file " + empty + ": is missing"}},
		{"the key of another certificate", func(o *TCPOptions) { o.KeyFile = writeFile(t, "k", leaf.KeyPEM) }, []string{"is not the key of the certificate"}},
		{"the key is encrypted", func(o *TCPOptions) {
			o.KeyFile = writeFile(t, "k", []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"))
		}, []string{"key file "}},
		{"the files are swapped", func(o *TCPOptions) { o.CertFile, o.KeyFile = o.KeyFile, o.CertFile }, []string{"holds no certificate", "key file "}},
		{"the client CA is empty", func(o *TCPOptions) { o.ClientCAFile = empty }, []string{"client CA file " + empty + ": is empty"}},
		{"the client CA is garbage", func(o *TCPOptions) { o.ClientCAFile = garbage }, []string{"client CA file " + garbage}},
		{"the client CA is cut off", func(o *TCPOptions) { o.ClientCAFile = half }, []string{"damaged PEM block"}},
		{"the client CA is a leaf", func(o *TCPOptions) { o.ClientCAFile = writeFile(t, "l", leaf.ChainPEM) }, []string{"client CA file ", "is not a CA certificate"}},
		{"the client CA has expired", func(o *TCPOptions) { o.ClientCAFile = writeFile(t, "e", oldCA.RootPEM()) }, []string{"has expired"}},
		{"the client CA is a key", func(o *TCPOptions) { o.ClientCAFile = o.KeyFile }, []string{"holds a private key: want only certificates"}},
		{"the address is wrong", func(o *TCPOptions) { o.Address = "nonsense" }, []string{"nonsense"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := tcpOptions(t, ca)
			tt.edit(&o)
			lis, err := ListenTCP(o)
			if err == nil {
				lis.Close()
				t.Fatal("it listens")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "PRIVATE"+" KEY") {
				t.Errorf("key material: %v", err)
			}
		})
	}
}

// The settings at the end of the handshake decide, not the settings at the time of
// the accept.
func TestHandshakeUsesTheSettingsInForce(t *testing.T) {
	ca, next := newCA(t), newCA(t)
	o := tcpOptions(t, ca)
	lis, err := ListenTCP(o)
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	dialed := make(chan error, 1)
	client := clientTLS(t, ca, issue(t, ca, pki.LeafOptions{Usage: pki.Client, CommonName: "ops"}))
	client.NextProtos = []string{"h2"}
	raw, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	accepted, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if err := os.WriteFile(o.ClientCAFile, next.RootPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := lis.Reload(); !changed || err != nil {
		t.Fatalf("changed %v, %v", changed, err)
	}
	client.ServerName = "127.0.0.1"
	go func() { dialed <- tls.Client(raw, client).HandshakeContext(t.Context()) }()
	if _, err := accepted.(*tcpConn).handshake(); err == nil {
		t.Error("a client of a CA that is no longer trusted was admitted")
	}
	<-dialed
}

func TestRevalidateEndsOnlyCallersThatNoLongerVerify(t *testing.T) {
	ca := newCA(t)
	o := tcpOptions(t, ca)
	o.ClientCRLFile = writeFile(t, "clients.crl", mustCRL(t, ca))
	lis, err := ListenTCP(o)
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	connect := func(client *pki.Issued) (remote *tls.Conn, subject string) {
		config := clientTLS(t, ca, client)
		config.NextProtos, config.ServerName = []string{"h2"}, "127.0.0.1"
		raw, err := net.Dial("tcp", lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		c, err := lis.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		remote = tls.Client(raw, config)
		done := make(chan error, 1)
		go func() { done <- remote.HandshakeContext(t.Context()) }()
		state, err := c.(*tcpConn).handshake()
		if err != nil || <-done != nil {
			t.Fatal(err)
		}
		return remote, callerName(state)
	}
	revoked := issue(t, ca, pki.LeafOptions{Usage: pki.Client, CommonName: "revoked"})
	remote, subject := connect(revoked)
	connect(issue(t, ca, pki.LeafOptions{Usage: pki.Client, CommonName: "good"}))
	var ended []string
	note := func(_, subject string, cause error) { ended = append(ended, subject) }
	if lis.Revalidate(note); len(ended) != 0 {
		t.Errorf("before the revocation %v ended", ended)
	}
	if err := os.WriteFile(o.ClientCRLFile, mustCRL(t, ca, revoked.Leaf.SerialNumber), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := lis.Reload(); !changed || err != nil {
		t.Fatalf("changed %v, %v", changed, err)
	}
	if lis.Revalidate(note); len(ended) != 1 || ended[0] != subject {
		t.Errorf("%v ended, want %s", ended, subject)
	}
	remote.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := remote.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection of the revoked client: %v", err)
	}
}

func mustCRL(t *testing.T, ca *pki.CA, revoked ...*big.Int) []byte {
	t.Helper()
	crl, err := ca.CRL(pki.CRLOptions{Revoked: revoked})
	if err != nil {
		t.Fatal(err)
	}
	return crl
}
