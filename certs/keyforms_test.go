package certs_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// run runs a program that operators use to make key material and returns its
// output. It skips the test if the program is missing.
func run(t testing.TB, input []byte, name string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.Command(path, args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

func byOpenSSL(t testing.TB, input []byte, args string) []byte {
	t.Helper()
	return run(t, input, "openssl", strings.Fields(args)...)
}

// selfSignedBy makes a certificate for a key with OpenSSL.
func selfSignedBy(t testing.TB, key []byte) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	return byOpenSSL(t, nil, "req -x509 -new -key "+file+" -subj /CN=a.test -days 100 -addext subjectAltName=DNS:a.test -addext basicConstraints=CA:FALSE")
}

const secret = "correct horse"

// Keys are read in every format of OpenSSL, for every key type.
func TestKeysOfOpenSSL(t *testing.T) {
	type key struct{ name, generate string }
	keys := []key{
		{"RSA", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048"},
		{"P-256", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"},
		{"P-384", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384"},
		{"P-521", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521"},
		{"Ed25519", "genpkey -algorithm ED25519"},
	}
	forms := []struct {
		name, args string
		encrypted  bool
		only       string // the only key type that has this form; "": all have it
	}{
		{"PKCS#8", "pkcs8 -topk8 -nocrypt", false, ""},
		{"PKCS#8 DER", "pkcs8 -topk8 -nocrypt -outform DER", false, ""},
		{"PKCS#1", "rsa -traditional", false, "RSA"},
		{"PKCS#1 DER", "rsa -traditional -outform DER", false, "RSA"},
		{"SEC1", "ec", false, "P-256 P-384 P-521"},
		{"SEC1 DER", "ec -outform DER", false, "P-256 P-384 P-521"},
		{"PBES2", "pkcs8 -topk8 -passout pass:PASS", true, ""},
		{"PBES2 DER", "pkcs8 -topk8 -outform DER -passout pass:PASS", true, ""},
		{"PBES2 AES-128", "pkcs8 -topk8 -v2 aes-128-cbc -passout pass:PASS", true, ""},
		{"PBES2 AES-192, HMAC-SHA-1", "pkcs8 -topk8 -v2 aes-192-cbc -v2prf hmacWithSHA1 -passout pass:PASS", true, ""},
		{"PBES2 AES-256, HMAC-SHA-224", "pkcs8 -topk8 -v2prf hmacWithSHA224 -passout pass:PASS", true, ""},
		{"PBES2 AES-256, HMAC-SHA-384", "pkcs8 -topk8 -v2prf hmacWithSHA384 -passout pass:PASS", true, ""},
		{"PBES2 AES-256, HMAC-SHA-512", "pkcs8 -topk8 -v2prf hmacWithSHA512 -passout pass:PASS", true, ""},
		{"PBES2 of many rounds", "pkcs8 -topk8 -iter 600000 -passout pass:PASS", true, "P-256"},
		{"PBES2 3DES", "pkcs8 -topk8 -v2 des3 -passout pass:PASS", true, ""},
		{"PBES2 scrypt", "pkcs8 -topk8 -scrypt -passout pass:PASS", true, ""},
		{"PBES2 scrypt DER", "pkcs8 -topk8 -scrypt -outform DER -passout pass:PASS", true, "P-256"},
		{"old PEM AES", "rsa -traditional -aes256 -passout pass:PASS", true, "RSA"},
		{"old PEM 3DES", "rsa -traditional -des3 -passout pass:PASS", true, "RSA"},
		{"old PEM SEC1", "ec -aes128 -passout pass:PASS", true, "P-256 P-384 P-521"},
	}
	for _, k := range keys {
		pkcs8 := byOpenSSL(t, nil, k.generate)
		chain := selfSignedBy(t, pkcs8)
		der, _ := pem.Decode(chain)
		for _, f := range forms {
			if f.only != "" && !strings.Contains(f.only, k.name) {
				continue
			}
			t.Run(k.name+"/"+f.name, func(t *testing.T) {
				args := strings.Fields(f.args)
				for i := range args {
					args[i] = strings.Replace(args[i], "PASS", secret, 1)
				}
				text := run(t, pkcs8, "openssl", args...)
				for _, chain := range [][]byte{chain, der.Bytes} {
					parsed, err := certs.NewCertificate(certs.CertificateSource{Chain: chain, Key: text, Passphrase: []byte(secret)})
					if err != nil {
						t.Fatal(err)
					}
					findings := parsed.Info().Findings
					if unneeded := len(findings) == 1 && findings[0] == certs.FindingUnneededPassphrase; unneeded == f.encrypted {
						t.Errorf("findings %v", findings)
					}
				}
				_, err := certs.NewCertificate(certs.CertificateSource{Chain: chain, Key: text})
				if !f.encrypted {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				if p := wantFault(t, err, "passphrase").Problem; !strings.Contains(p, "is missing") {
					t.Errorf("without a passphrase: %s", p)
				}
				wrong := []string{"wrong"}
				if k.name == "P-256" { // a wrong passphrase takes as long to check as the right one
					wrong = append(wrong, secret+"\n", strings.ToUpper(secret))
				}
				for _, wrong := range wrong {
					_, err = certs.NewCertificate(certs.CertificateSource{Chain: chain, Key: text, Passphrase: []byte(wrong)})
					if p := wantFault(t, err, "passphrase").Problem; !strings.Contains(p, "is not the one") {
						t.Errorf("with a wrong passphrase: %s", p)
					}
				}
			})
		}
	}
}

// Insecure encryption is rejected, with the command that fixes it.
func TestKeysWithInsecureEncryption(t *testing.T) {
	pkcs8 := byOpenSSL(t, nil, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256")
	chain := selfSignedBy(t, pkcs8)
	for _, form := range []string{
		"pkcs8 -topk8 -v1 PBE-SHA1-3DES -passout pass:x",
		"pkcs8 -topk8 -v2 camellia-256-cbc -passout pass:x",
		"ec -camellia256 -passout pass:x",
	} {
		_, err := certs.NewCertificate(certs.CertificateSource{Chain: chain, Key: byOpenSSL(t, pkcs8, form), Passphrase: []byte("x")})
		if p := wantFault(t, err, "private_key").Problem; !strings.Contains(p, "openssl pkcs8 -topk8") {
			t.Errorf("%s: %s", form, p)
		}
	}
}

func TestKeysThatTLSDoesNotSupport(t *testing.T) {
	chain := certstest.NewCA(t).Server(t, "a.test").ChainPEM
	for _, c := range []struct{ generate, say string }{
		{"genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-224", "P-224"},
		{"genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1", "want ECDSA, RSA or Ed25519"},
		{"genpkey -algorithm ED448", "want ECDSA, RSA or Ed25519"},
		{"genpkey -algorithm X25519", "want ECDSA, RSA or Ed25519"},
		{"genrsa -traditional 512", "1024 to 8192"},
	} {
		plain := byOpenSSL(t, nil, c.generate)
		for _, key := range [][]byte{plain, byOpenSSL(t, plain, "pkcs8 -topk8 -passout pass:pw")} {
			_, err := certs.NewCertificate(certs.CertificateSource{Chain: chain, Key: key, Passphrase: []byte("pw")})
			if p := wantFault(t, err, "private_key").Problem; !strings.Contains(p, c.say) {
				t.Errorf("%s: %s", c.generate, p)
			}
		}
	}
}

// One file may hold the chain and the key in any order, as for HAProxy.
func TestKeyInTheChainsFile(t *testing.T) {
	root := certstest.NewCA(t)
	issued := root.Intermediate(t).Server(t, "a.test")
	other := root.Server(t, "b.test")
	leaf, mid := splitPEM(t, issued.ChainPEM)
	key := issued.KeyPEM
	encrypted := byOpenSSL(t, key, "pkcs8 -topk8 -passout pass:"+"pw")
	parameters := block("EC PARAMETERS", []byte{6, 0})
	dh := block("DH PARAMETERS", []byte("x"))
	type source = certs.CertificateSource
	for _, c := range []struct {
		name   string
		source source
		field  string // the field of the fault; "": no fault
		say    string
	}{
		{"key last", source{Chain: join(leaf, mid, key)}, "", ""},
		{"key first", source{Chain: join(key, leaf, mid)}, "", ""},
		{"the key between certificates, and parameters", source{Chain: join(parameters, mid, dh, key, leaf)}, "", ""},
		{"with a byte order mark", source{Chain: join([]byte("\xef\xbb\xbf"), key, leaf, mid)}, "", ""},
		{"encrypted", source{Chain: join(leaf, mid, encrypted), Passphrase: []byte("pw")}, "", ""},
		{"the same file for both", source{Chain: join(leaf, mid, key), Key: join(leaf, mid, key)}, "", ""},
		{"encrypted, without a passphrase", source{Chain: join(leaf, mid, encrypted)}, "passphrase", "is missing"},
		{"no key", source{Chain: join(leaf, mid)}, "private_key", "is missing"},
		{"no key, and DER", source{Chain: derOf(leaf)}, "private_key", "is missing"},
		{"no certificate", source{Chain: key}, "certificate_chain", "holds no certificate"},
		{"two keys", source{Chain: join(leaf, key, mid, other.KeyPEM)}, "certificate_chain", "more than one"},
		{"the key of another certificate", source{Chain: join(leaf, mid, other.KeyPEM)}, "certificate_chain", "is not the key of"},
		{"half a key", source{Chain: join(leaf, mid, block("PRIVATE KEY", derOf(key)[:40]))}, "certificate_chain", "cannot be parsed"},
		{"a damaged block", source{Chain: join(leaf, key, bytes.Replace(mid, []byte("-----END"), []byte("-----FIN"), 1))}, "certificate_chain", "damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.source.KeyInChain = true
			parsed, err := certs.NewCertificate(c.source)
			if c.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				if info := parsed.Info(); info.ChainLength != 2 || !parsed.Matches("a.test") {
					t.Errorf("info %+v", info)
				}
				// The file is rejected unless the source allows a key in it.
				c.source.KeyInChain = false
				_, err = certs.NewCertificate(c.source)
				checkSecrets(t, wantFault(t, err, "certificate_chain").Problem, key)
				return
			}
			if p := wantFault(t, err, c.field).Problem; !strings.Contains(p, c.say) {
				t.Errorf("problem %q", p)
			}
			checkSecrets(t, err.Error(), key)
		})
	}
}

// splitPEM returns a leaf and its intermediate.
func splitPEM(t testing.TB, chain []byte) (leaf, mid []byte) {
	t.Helper()
	first, rest := pem.Decode(chain)
	second, _ := pem.Decode(rest)
	if second == nil {
		t.Fatal("a chain of one")
	}
	return pem.EncodeToMemory(first), pem.EncodeToMemory(second)
}

func derOf(text []byte) []byte {
	b, _ := pem.Decode(text)
	return b.Bytes
}

// checkSecrets fails the test if a text contains a part of a secret, in PEM or
// not.
func checkSecrets(t testing.TB, text string, secrets ...[]byte) {
	t.Helper()
	if strings.Contains(text, "PRIVATE KEY") {
		t.Errorf("the text names a PEM block of a private key: %s", text)
	}
	for _, s := range secrets {
		for line := range bytes.Lines(s) {
			if line = bytes.TrimSpace(line); len(line) >= 8 && !bytes.HasPrefix(line, []byte("-----")) && strings.Contains(text, string(line)) {
				t.Errorf("the text holds a secret: %s", text)
			}
		}
	}
}

// A certificate in DER works like one in PEM, alone or before others.
func TestChainInDER(t *testing.T) {
	root := certstest.NewCA(t)
	issued := root.Intermediate(t).Server(t, "a.test")
	leaf, mid := splitPEM(t, issued.ChainPEM)
	for name, chain := range map[string][]byte{
		"a leaf":                   derOf(leaf),
		"a chain":                  join(derOf(leaf), derOf(mid)),
		"a chain in reverse order": join(derOf(mid), derOf(leaf)),
	} {
		c, err := certs.NewCertificate(certs.CertificateSource{Chain: chain, Key: derOf(issued.KeyPEM)})
		if err != nil || !c.Matches("a.test") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		chain []byte
		say   string
	}{
		"too many":           {bytes.Repeat(derOf(leaf), 17), "more than 16"},
		"PKCS#7":             {byOpenSSL(t, leaf, "crl2pkcs7 -nocrl -certfile /dev/stdin -outform DER"), "openssl pkcs7"},
		"half a certificate": {derOf(leaf)[:200], "neither PEM nor DER"},
		"another sequence":   {join([]byte{0x30, 0x81, 0x80}, bytes.Repeat([]byte{5, 0}, 64)), "cannot be parsed"},
	} {
		_, err := certs.NewCertificate(certs.CertificateSource{Chain: c.chain, Key: issued.KeyPEM})
		if p := wantFault(t, err, "certificate_chain").Problem; !strings.Contains(p, c.say) {
			t.Errorf("%s: %s", name, p)
		}
	}
}

func TestPassphrasesAreBounded(t *testing.T) {
	issued := certstest.NewCA(t).Server(t, "a.test")
	_, err := certs.NewCertificate(certs.CertificateSource{Chain: issued.ChainPEM, Key: issued.KeyPEM, Passphrase: make([]byte, 1<<20)})
	if p := wantFault(t, err, "passphrase").Problem; !strings.Contains(p, "4096") {
		t.Error(p)
	}
}

// A key that would take minutes to check is not checked.
func TestKeysAndCertificatesOfAbsurdSizeAreRefused(t *testing.T) {
	issued := certstest.NewCA(t).Server(t, "a.test")
	_, err := certs.NewCertificate(certs.CertificateSource{Chain: issued.ChainPEM, Key: block("RSA PRIVATE KEY", bytes.Repeat([]byte{0x30}, 1<<20))})
	if p := wantFault(t, err, "private_key").Problem; !strings.Contains(p, "at most") {
		t.Error(p)
	}
}
