package admin

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/guard"
)

// TCPOptions configure ListenTCP. The first four fields are required.
type TCPOptions struct {
	Address      string // "127.0.0.1:9443"
	CertFile     string // the server's certificate chain, in PEM or DER
	KeyFile      string // the private key
	ClientCAFile string // CA certificates that callers' certificates must chain to

	// ClientCRLFile holds revocation lists of those CAs. Empty: no revocation
	// checks.
	ClientCRLFile string

	// ClientNames are the accepted subject alternative names: "DNS:…", "URI:…",
	// "IP:…", "email:…". A caller's certificate must have one of them. Empty: any
	// name.
	ClientNames []string

	// Limits bounds the connections. The zero value allows one connection.
	Limits guard.Options

	// Listen returns the socket for Address. Nil: a new one.
	Listen func(address string) (net.Listener, error)
}

// A TCPListener accepts TLS connections (1.2 or later) from clients whose
// certificates the verification engine of package certs accepts.
type TCPListener struct {
	*guard.Listener
	o        TCPOptions
	identity atomic.Pointer[identity]

	reloading sync.Mutex // held by Reload, which can hang with the file system

	mu    sync.Mutex
	conns map[*tcpConn]struct{} // open connections
}

// An identity holds the parsed files of a TCPListener. It is immutable.
type identity struct {
	server *certs.Server
	cert   *certs.Certificate
	trust  *certs.TrustBundle
	digest [sha256.Size]byte
}

// ListenTCP listens on the address. The error names every file that is missing or
// invalid.
func ListenTCP(o TCPOptions) (*TCPListener, error) {
	now, err := o.load()
	if err != nil {
		return nil, fmt.Errorf("admin address %s: %w", o.Address, err)
	}
	if o.Listen == nil {
		o.Listen = func(address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	lis, err := o.Listen(o.Address)
	if err != nil {
		return nil, fmt.Errorf("admin address %s: %w", o.Address, err)
	}
	o.Limits.Connections = max(o.Limits.Connections, 1)
	l := &TCPListener{Listener: guard.New(lis, o.Limits), o: o, conns: map[*tcpConn]struct{}{}}
	l.identity.Store(now)
	return l, nil
}

// Accept implements net.Listener. The first read or write performs the
// handshake.
func (l *TCPListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.track(raw), nil
}

// Reload reads the files again and reports whether they have changed. On an error it
// keeps the current settings. Open connections stay as they are: see Revalidate.
func (l *TCPListener) Reload() (changed bool, err error) {
	// A read that hung must not replace newer files with older ones.
	if !l.reloading.TryLock() {
		return false, errors.New("the files are still being read: their file system may hang")
	}
	defer l.reloading.Unlock()
	now, err := l.o.load()
	if err != nil {
		return false, err
	}
	before := l.identity.Swap(now)
	if before.digest == now.digest {
		l.identity.Store(before) // keeps its session tickets
		return false, nil
	}
	return true, nil
}

// Certificate returns the certificate that is presented to callers.
func (l *TCPListener) Certificate() *certs.Certificate { return l.identity.Load().cert }

// Trust returns the CAs that callers' certificates must chain to.
func (l *TCPListener) Trust() *certs.TrustBundle { return l.identity.Load().trust }

// load reads and checks all files.
func (o *TCPOptions) load() (*identity, error) {
	sum := sha256.New()
	var missing error
	read := func(what, file string) []byte {
		text, err := readFile(what, file)
		if err != nil {
			missing = errors.Join(missing, err)
		}
		fmt.Fprintf(sum, "%d:%s", len(text), text)
		return text
	}
	source := certs.CertificateSource{Chain: read("certificate", o.CertFile), Key: read("key", o.KeyFile), KeyInChain: true}
	trusted := certs.TrustSource{Field: "ca", Certificates: read("client CA", o.ClientCAFile)}
	if o.ClientCRLFile != "" {
		trusted.CRLs = []certs.CRLSource{{Field: "crl", Data: read("client CRL", o.ClientCRLFile)}}
	}
	if missing != nil {
		return nil, missing
	}
	cert, certErr := certs.NewCertificate(source)
	trust, trustErr := certs.NewTrustBundle(trusted)
	names, nameErr := certs.ParseSANs(o.ClientNames)
	err := errors.Join(o.explain(certErr), o.explain(trustErr), o.explain(nameErr))
	if err != nil {
		return nil, err
	}
	server, err := certs.NewServer(certs.ServerOptions{
		Certificates: []*certs.Certificate{cert}, ClientAuth: certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{trust},
		ClientSubjectAltNames: names, NextProtos: []string{"h2"},
	})
	if err != nil {
		return nil, o.explain(err)
	}
	return &identity{server: server, cert: cert, trust: trust, digest: [sha256.Size]byte(sum.Sum(nil))}, nil
}

// explain adds the name of the faulty file to each fault.
func (o *TCPOptions) explain(err error) error {
	var faults certs.Faults
	if !errors.As(err, &faults) {
		return err
	}
	var all error
	for _, f := range faults {
		where := "client names"
		switch field, _, _ := strings.Cut(f.Field, "["); field {
		case "certificate_chain":
			where = "certificate file " + o.CertFile
		case "private_key", "passphrase":
			where = "key file " + o.KeyFile
		case "ca":
			where = "client CA file " + o.ClientCAFile
		case "crl":
			where = "client CRL file " + o.ClientCRLFile
		}
		all = errors.Join(all, fmt.Errorf("%s: %s", where, sanitize(f.Problem, maxFault)))
	}
	return all
}

func readFile(kind, file string) ([]byte, error) {
	if file == "" {
		return nil, fmt.Errorf("a %s file is needed: the admin API is served over TCP only with TLS and client certificates", kind)
	}
	text, err := fileroot.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s file %s: %w", kind, file, err)
	}
	return text, nil
}
