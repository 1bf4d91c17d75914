// A bridge works with key material in every format of OpenSSL and Java: the
// upstream sees the client's identity, and clients see the listener's.

package e2e

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// archive returns a PKCS#12 archive in OpenSSL's default format.
func archive(t testing.TB, issued *pki.Issued, password string, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	chain := writeFile(t, filepath.Join(dir, "chain.pem"), issued.ChainPEM)
	key := writeFile(t, filepath.Join(dir, "key.pem"), issued.KeyPEM)
	return openssl(t, append([]string{"pkcs12", "-export", "-in", chain, "-inkey", key, "-passout", "pass:" + password}, args...)...)
}

// encryptedKey returns the key as encrypted PKCS#8 in PEM.
func encryptedKey(t testing.TB, issued *pki.Issued, passphrase string, args ...string) []byte {
	t.Helper()
	key := writeFile(t, filepath.Join(t.TempDir(), "key.pem"), issued.KeyPEM)
	return openssl(t, append([]string{"pkcs8", "-topk8", "-in", key, "-passout", "pass:" + passphrase}, args...)...)
}

// openssl returns the output of an openssl command.
func openssl(t testing.TB, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	if r := command(t, need(t, "openssl"), append(args, "-out", out)...); r.code != 0 {
		t.Fatalf("openssl %s: %s", args[0], r)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func der(t testing.TB, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("no PEM")
	}
	return block.Bytes
}

func TestEveryFormatOfACertificate(t *testing.T) {
	t.Parallel()
	const passphrase = "pass phrase ü"
	root := newCA(t, "e2e root")
	ca := intermediate(t, root) // so that the chain has an intermediate
	both := func(name string, key pki.KeyType) *pki.Issued {
		return issue(t, ca, pki.LeafOptions{CommonName: name, DNSNames: []string{serverName}, Usage: pki.Both, Key: key})
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{keyPair(t, serverCert(t, ca, serverName))}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(root),
	}
	// The upstream answers with its client's common name.
	who := serveConns(t, config, func(conn net.Conn) {
		c := conn.(*tls.Conn)
		if c.HandshakeContext(t.Context()) == nil {
			_, _ = fmt.Fprint(c, c.ConnectionState().PeerCertificates[0].Subject.CommonName)
			_ = c.CloseWrite()
		}
	})

	g := startGateway(t)
	dir := filepath.Join(g.dir, "files")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	g.apply(&adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_File{File: writeFile(t, filepath.Join(dir, "ca.der"), der(t, root.RootPEM()))}})

	rsa := func(name string) *pki.Issued { return both(name, pki.RSA2048) }
	ec := func(name string) *pki.Issued { return both(name, pki.ECDSAP256) }
	inline := func(chain, key []byte, passphrase string) func(name string) *adminv1.Certificate {
		return func(name string) *adminv1.Certificate {
			return &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: string(chain), PrivateKey: string(key), Passphrase: passphrase}}}
		}
	}
	p12 := func(data []byte) func(name string) *adminv1.Certificate {
		return func(name string) *adminv1.Certificate {
			return &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Pkcs12{Pkcs12: &adminv1.CertificatePkcs12{Data: data, Passphrase: passphrase}}}
		}
	}
	files := func(chain, key, passphrase []byte) func(name string) *adminv1.Certificate {
		return func(name string) *adminv1.Certificate {
			f := &adminv1.CertificateFiles{CertificatePath: writeFile(t, filepath.Join(dir, name+".crt"), chain)}
			if key != nil {
				f.PrivateKeyPath = writeFile(t, filepath.Join(dir, name+".key"), key)
			}
			if passphrase != nil {
				f.PassphrasePath = writeFile(t, filepath.Join(dir, name+".pass"), passphrase)
			}
			return &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Files{Files: f}}
		}
	}
	backwards := func(issued *pki.Issued) []byte {
		leaf, rest := pem.Decode(issued.ChainPEM)
		return append(rest, pem.EncodeToMemory(leaf)...)
	}
	convert := func(issued *pki.Issued, args ...string) []byte {
		key := writeFile(t, filepath.Join(t.TempDir(), "key"), issued.KeyPEM)
		return openssl(t, append(args, "-in", key)...)
	}

	cases := []struct {
		name  string
		build func(issued *pki.Issued) func(name string) *adminv1.Certificate
		key   func(name string) *pki.Issued
	}{
		{"ed25519", func(i *pki.Issued) func(string) *adminv1.Certificate { return inline(i.ChainPEM, i.KeyPEM, "") }, func(n string) *pki.Issued { return both(n, pki.Ed25519) }},
		{"rsa-pkcs1", func(i *pki.Issued) func(string) *adminv1.Certificate {
			return inline(i.ChainPEM, convert(i, "rsa", "-traditional"), "")
		}, rsa},
		{"rsa-pkcs1-encrypted", func(i *pki.Issued) func(string) *adminv1.Certificate {
			return inline(i.ChainPEM, convert(i, "rsa", "-traditional", "-aes128", "-passout", "pass:"+passphrase), passphrase)
		}, rsa},
		{"ec-sec1", func(i *pki.Issued) func(string) *adminv1.Certificate { return inline(i.ChainPEM, convert(i, "ec"), "") }, ec},
		{"ec-sec1-encrypted", func(i *pki.Issued) func(string) *adminv1.Certificate {
			return inline(i.ChainPEM, convert(i, "ec", "-aes256", "-passout", "pass:"+passphrase), passphrase)
		}, ec},
		{"pkcs8-encrypted", func(i *pki.Issued) func(string) *adminv1.Certificate {
			return inline(i.ChainPEM, encryptedKey(t, i, passphrase), passphrase)
		}, ec},
		{"pkcs8-scrypt", func(i *pki.Issued) func(string) *adminv1.Certificate {
			return inline(i.ChainPEM, encryptedKey(t, i, passphrase, "-scrypt"), passphrase)
		}, ec},
		{"pkcs8-3des", func(i *pki.Issued) func(string) *adminv1.Certificate {
			return inline(i.ChainPEM, encryptedKey(t, i, passphrase, "-v2", "des3"), passphrase)
		}, rsa},
		{"order-corrected", func(i *pki.Issued) func(string) *adminv1.Certificate { return inline(backwards(i), i.KeyPEM, "") }, ec},
		{"files-one-bundle", func(i *pki.Issued) func(string) *adminv1.Certificate {
			return files(append(append([]byte{}, i.KeyPEM...), i.ChainPEM...), nil, nil)
		}, ec},
		{"files-der-key", func(i *pki.Issued) func(string) *adminv1.Certificate { return files(i.ChainPEM, der(t, i.KeyPEM), nil) }, ec},
		{"files-encrypted", func(i *pki.Issued) func(string) *adminv1.Certificate {
			return files(i.ChainPEM, encryptedKey(t, i, passphrase), []byte(passphrase+"\n"))
		}, ec},
		{"files-pkcs12", func(i *pki.Issued) func(string) *adminv1.Certificate {
			return files(archive(t, i, passphrase), nil, []byte(passphrase+"\r\n"))
		}, ec},
		{"pkcs12", func(i *pki.Issued) func(string) *adminv1.Certificate { return p12(archive(t, i, passphrase)) }, ec},
		{"pkcs12-old", func(i *pki.Issued) func(string) *adminv1.Certificate {
			return p12(archive(t, i, passphrase, "-legacy"))
		}, rsa},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			issued := c.key(c.name)
			settings := &adminv1.UpstreamTls{Certificate: c.name, TrustBundles: []string{"ca"}, ServerName: serverName}
			front := listener(c.name, protocolTCP, c.name)
			front.Tls = &adminv1.ServerTls{Certificates: []string{c.name}}
			g.apply(c.build(issued)(c.name), upstream(c.name, settings, who), front)
			expectSeen(t, g, c.name, root, c.name)
		})
	}
	t.Run("keytool", func(t *testing.T) {
		store := filepath.Join(t.TempDir(), "store.p12")
		if r := command(t, need(t, "keytool"), "-genkeypair", "-keystore", store, "-storetype", "PKCS12", "-storepass", "changeit", "-alias", "a",
			"-keyalg", "EC", "-groupname", "secp256r1", "-dname", "CN=java", "-validity", "30", "-ext", "SAN=dns:"+serverName); r.code != 0 {
			t.Fatalf("keytool: %s", r)
		}
		data, err := os.ReadFile(store)
		if err != nil {
			t.Fatal(err)
		}
		c := &adminv1.Certificate{Name: "java", Source: &adminv1.Certificate_Pkcs12{Pkcs12: &adminv1.CertificatePkcs12{Data: data, Passphrase: "changeit"}}}
		resp, err := g.admin.PutCertificate(longContext(t), &adminv1.PutCertificateRequest{Certificate: c})
		if err != nil || resp.GetCertificate().GetInfo().GetSubject() != "CN=java" {
			t.Errorf("%v, %v", resp, err)
		}
	})
	// The store holds everything needed to open the material again.
	g.stop()
	g = g.restart()
	for _, c := range cases {
		expectSeen(t, g, c.name, root, c.name)
	}
}

// expectSeen checks that the upstream behind a TLS listener sees the given
// common name, and that the listener presents it too.
func expectSeen(t *testing.T, g *gateway, name string, root *pki.CA, want string) {
	t.Helper()
	conn := dialTLS(t, g.address(name), &tls.Config{RootCAs: pool(root), ServerName: serverName})
	defer conn.Close()
	if got := conn.ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
		t.Errorf("the listener presents %q", got)
	}
	var seen strings.Builder
	for buf := make([]byte, 256); ; {
		n, err := conn.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			break
		}
	}
	if seen.String() != want {
		t.Errorf("the upstream sees %q, want %q", seen.String(), want)
	}
}
