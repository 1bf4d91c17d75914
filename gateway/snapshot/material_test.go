package snapshot

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/youmark/pkcs8"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const passphrase = "correct horse battery"

// der returns the content of the first PEM block.
func der(t *testing.T, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("no PEM")
	}
	return block.Bytes
}

func privateKey(t *testing.T, i *pki.Issued) any {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(der(t, i.KeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// encrypted returns the key as encrypted PKCS#8 in PEM.
func encrypted(t *testing.T, i *pki.Issued) []byte {
	t.Helper()
	content, err := pkcs8.MarshalPrivateKey(privateKey(t, i), []byte(passphrase), nil)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: content})
}

func archive(t *testing.T, i *pki.Issued, with string) []byte {
	t.Helper()
	data, err := pkcs12.Modern.Encode(privateKey(t, i), i.Leaf, nil, with)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pemSource(chain, key, passphrase string) *adminv1.Certificate {
	return &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: chain, PrivateKey: key, Passphrase: passphrase}}}
}

func pkcs12Source(data []byte, passphrase string) *adminv1.Certificate {
	return &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Pkcs12{Pkcs12: &adminv1.CertificatePkcs12{Data: data, Passphrase: passphrase}}}
}

func fileSource(chain, key, passphrase string) *adminv1.Certificate {
	return &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: chain, PrivateKeyPath: key, PassphrasePath: passphrase}}}
}

func TestCertificateIsTheSameFromEverySource(t *testing.T) {
	w, dir := newTestbed(t), t.TempDir()
	i := w.ca.Client(t, "one")
	n := 0
	file := func(content ...[]byte) string {
		n++
		return write(t, filepath.Join(dir, fmt.Sprint(n)), bytes.Join(content, nil))
	}
	chain, key, pass := string(i.ChainPEM), string(i.KeyPEM), []byte(passphrase)
	for what, c := range map[string]*adminv1.Certificate{
		"PEM":                                     pemSource(chain, key, ""),
		"PEM with an encrypted key":               pemSource(chain, string(encrypted(t, i)), passphrase),
		"PKCS#12":                                 pkcs12Source(archive(t, i, passphrase), passphrase),
		"PKCS#12 with an empty passphrase":        pkcs12Source(archive(t, i, ""), ""),
		"files":                                   fileSource(file(i.ChainPEM), file(i.KeyPEM), ""),
		"files in DER":                            fileSource(file(der(t, i.ChainPEM)), file(der(t, i.KeyPEM)), ""),
		"one file":                                fileSource(file(i.KeyPEM, i.ChainPEM), "", ""),
		"files with an encrypted key":             fileSource(file(i.ChainPEM), file(encrypted(t, i)), file(pass, []byte("\n"))),
		"one file with an encrypted key":          fileSource(file(i.ChainPEM, encrypted(t, i)), "", file(pass)),
		"a passphrase file as Windows writes it":  fileSource(file(i.ChainPEM), file(encrypted(t, i)), file(pass, []byte("\r\n"))),
		"a PKCS#12 file":                          fileSource(file(archive(t, i, passphrase)), "", file(pass, []byte("\n"))),
		"a PKCS#12 file with an empty passphrase": fileSource(file(archive(t, i, "")), "", ""),
	} {
		next, _, bad := w.try(store.Edit{Puts: puts(c)})
		if err := bad.Err(); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if live := next.certificates.Get("c").live; !live.Leaf().Equal(i.Leaf) {
			t.Errorf("%s: %v", what, live.Leaf().Subject)
		}
	}
}

func TestFaultsOfKeyMaterialNameTheFieldAndNoSecret(t *testing.T) {
	w, dir := newTestbed(t), t.TempDir()
	i, other := w.ca.Client(t, "one"), w.ca.Client(t, "other")
	file := func(name string, content []byte) string { return write(t, filepath.Join(dir, name), content) }
	chain, key := file("chain", i.ChainPEM), file("key", i.KeyPEM)
	locked, p12, secret := file("locked", encrypted(t, i)), file("p12", archive(t, i, passphrase)), file("pass", []byte("wrong horse"))
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	bundle := func(b *adminv1.TrustBundle) store.Resource { b.Name = "t"; return b }
	ca := string(w.ca.TrustPEM())
	for _, tt := range []struct {
		what string
		put  store.Resource
		want string
	}{
		{"no source", &adminv1.Certificate{Name: "c"}, "r0.pem"},
		{"a key in the chain, which is shown", pemSource(string(i.ChainPEM)+string(i.KeyPEM), string(i.KeyPEM), ""), "r0.pem.certificate_chain"},
		{"only a chain with the key in it", pemSource(string(i.KeyPEM)+string(i.ChainPEM), "", ""), "r0.pem.certificate_chain r0.pem.private_key"},
		{"no key", pemSource(string(i.ChainPEM), "", ""), "r0.pem.private_key"},
		{"the key of another certificate", pemSource(string(i.ChainPEM), string(other.KeyPEM), ""), "r0.pem.private_key"},
		{"no passphrase", pemSource(string(i.ChainPEM), string(encrypted(t, i)), ""), "r0.pem.passphrase"},
		{"a wrong passphrase", pemSource(string(i.ChainPEM), string(encrypted(t, i)), "wrong horse"), "r0.pem.passphrase"},
		{"no archive", pkcs12Source(nil, passphrase), "r0.pkcs12.data"},
		{"a damaged archive", pkcs12Source(archive(t, i, passphrase)[:99], passphrase), "r0.pkcs12.data"},
		{"a wrong passphrase of an archive", pkcs12Source(archive(t, i, passphrase), "wrong horse"), "r0.pkcs12.passphrase"},
		{"no path", fileSource("", key, ""), "r0.files.certificate_path"},
		{"a relative path", fileSource("c.pem", key, ""), "r0.files.certificate_path"},
		{"a key in place of a path", fileSource(chain, string(i.KeyPEM), ""), "r0.files.private_key_path"},
		{"a chain without a key", fileSource(chain, "", ""), "r0.files.private_key_path"},
		{"a chain in DER without a key", fileSource(file("der", der(t, i.ChainPEM)), "", ""), "r0.files.private_key_path"},
		{"an empty key file", fileSource(chain, file("empty", nil), ""), "r0.files.private_key_path"},
		{"a file with the key of another certificate certificate", fileSource(file("both", append(other.KeyPEM, i.ChainPEM...)), "", ""), "r0.files.certificate_path"},
		{"a FIFO", fileSource(fifo, key, ""), "r0.files.certificate_path"},
		{"a file without its passphrase", fileSource(chain, locked, ""), "r0.files.passphrase_path"},
		{"a wrong passphrase file", fileSource(chain, locked, secret), "r0.files.passphrase_path"},
		{"a missing passphrase file", fileSource(chain, locked, filepath.Join(dir, "missing")), "r0.files.passphrase_path"},
		{"an archive and a key", fileSource(p12, key, ""), "r0.files.certificate_path"},
		{"an archive without its passphrase", fileSource(p12, "", ""), "r0.files.passphrase_path"},

		{"no CAs", bundle(&adminv1.TrustBundle{}), "r0.pem"},
		{"a missing path of the CAs", bundle(&adminv1.TrustBundle{Source: &adminv1.TrustBundle_File{}}), "r0.file"},
		{"a key in place of CAs", bundle(&adminv1.TrustBundle{Source: &adminv1.TrustBundle_File{File: key}}), "r0.file"},
		{"a leaf in place of a CA", bundle(&adminv1.TrustBundle{Source: &adminv1.TrustBundle_Pem{Pem: ca + string(i.ChainPEM)}}), "r0.pem[1]"},
		{"an empty revocation list", bundle(&adminv1.TrustBundle{Source: &adminv1.TrustBundle_Pem{Pem: ca}, Crls: []*adminv1.Crl{{}}}), "r0.crls[0]"},
		{"garbage in place of a revocation list", bundle(&adminv1.TrustBundle{Source: &adminv1.TrustBundle_Pem{Pem: ca},
			Crls: []*adminv1.Crl{{Source: &adminv1.Crl_Pem{Pem: "garbage"}}}}), "r0.crls[0].pem"},
		{"a missing file of a revocation list", bundle(&adminv1.TrustBundle{Source: &adminv1.TrustBundle_System{System: &adminv1.SystemRoots{}},
			Crls: []*adminv1.Crl{{Source: &adminv1.Crl_File{File: filepath.Join(dir, "missing")}}}}), "r0.crls[0].file"},
		{"CAs in place of a revocation list", bundle(&adminv1.TrustBundle{Source: &adminv1.TrustBundle_Pem{Pem: ca},
			Crls: []*adminv1.Crl{{Source: &adminv1.Crl_File{File: write(t, filepath.Join(dir, "ca"), []byte(ca))}}}}), "r0.crls[0].file"},
	} {
		faults := w.refused(tt.put)
		var fields []string
		for _, f := range faults {
			fields = append(fields, string(f.Field))
		}
		if strings.Join(fields, " ") != tt.want {
			t.Errorf("%s: %v, want a fault at %s", tt.what, faults, tt.want)
		}
		for _, f := range faults {
			if strings.Contains(f.Message, "horse") || strings.Contains(f.Message, "PRIVATE KEY--") {
				t.Errorf("%s: the message reveals a secret: %s", tt.what, f.Message)
			}
		}
	}
}

// A client that can put resources must not learn which files exist.
func TestPathOutsideTheRootsIsRefusedWithOneMessage(t *testing.T) {
	w := newTestbed(t)
	var said []string
	for _, path := range []string{"/etc/passwd", "/etc/shadow", "/does/not/exist", "/etc", "/dev/zero", "/root/.ssh/id_rsa", os.TempDir() + "/../etc/passwd"} {
		for _, r := range []store.Resource{
			&adminv1.TrustBundle{Name: "t", Source: &adminv1.TrustBundle_File{File: path}},
			fileSource(path, "", ""),
		} {
			for _, f := range w.refused(r) {
				said = append(said, f.Message)
			}
		}
	}
	slices.Sort(said)
	if len(said) != 14 || len(slices.Compact(said)) != 1 {
		t.Errorf("%q", said)
	}
}

// The test marks all secrets. No field of Present's result may contain a mark.
func TestPresentOmitsSecrets(t *testing.T) {
	const mark = "SECRET-MARK"
	for what, c := range map[string]*adminv1.Certificate{
		"PEM":     pemSource("chain", mark+"key", mark+"passphrase"),
		"PKCS#12": pkcs12Source([]byte(mark+"archive"), mark+"passphrase"),
		"files":   fileSource("/chain", "/key", "/passphrase"),
	} {
		c.Labels = map[string]string{"team": "pay"}
		shown := new(Snapshot).Present(c).(*adminv1.Certificate)
		walk(shown.ProtoReflect(), func(field protoreflect.FieldDescriptor, value string) {
			if strings.Contains(value, mark) {
				t.Errorf("%s: %s is shown", what, field.FullName())
			}
		})
		if shown.GetLabels()["team"] != "pay" || fmt.Sprintf("%T", shown.GetSource()) != fmt.Sprintf("%T", c.GetSource()) {
			t.Errorf("%s: %v", what, shown)
		}
		if what == "files" && !proto.Equal(shown, c) {
			t.Errorf("paths are not secret: %v", shown)
		}
	}
	// This test knows each field of the API that may hold a secret. Check each new
	// field by hand before you list it here.
	var open []string
	for _, m := range []proto.Message{&adminv1.CertificatePem{}, &adminv1.CertificatePkcs12{}, &adminv1.CertificateFiles{}} {
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			open = append(open, string(fields.Get(i).FullName().Parent().Name())+"."+string(fields.Get(i).Name()))
		}
	}
	want := "CertificatePem.certificate_chain CertificatePem.private_key CertificatePem.passphrase CertificatePkcs12.data CertificatePkcs12.passphrase " +
		"CertificateFiles.certificate_path CertificateFiles.private_key_path CertificateFiles.passphrase_path"
	if got := strings.Join(open, " "); got != want {
		t.Errorf("the sources have the fields %s", got)
	}
}

// walk calls f with every string and every bytes in a message.
func walk(m protoreflect.Message, f func(protoreflect.FieldDescriptor, string)) {
	var value func(field protoreflect.FieldDescriptor, v protoreflect.Value)
	value = func(field protoreflect.FieldDescriptor, v protoreflect.Value) {
		switch x := v.Interface().(type) {
		case string:
			f(field, x)
		case []byte:
			f(field, string(x))
		case protoreflect.Message:
			walk(x, f)
		case protoreflect.List:
			for i := range x.Len() {
				value(field, x.Get(i))
			}
		case protoreflect.Map:
			x.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				value(field, k.Value())
				value(field, v)
				return true
			})
		}
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		value(field, v)
		return true
	})
}

func TestRevocationListsAreReadAgainWithTheirBundle(t *testing.T) {
	w, dir := newTestbed(t), t.TempDir()
	crl := filepath.Join(dir, "ca.crl")
	write(t, crl, w.ca.CRL(t))
	b := w.bundle("t")
	b.Crls = []*adminv1.Crl{{Source: &adminv1.Crl_File{File: crl}}, {Source: &adminv1.Crl_Pem{Pem: string(w.ca.CRL(t))}}}
	w.put(b, tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"t"}}))
	first := w.snap
	shown := first.Present(first.State().Get(adminv1.Kind_KIND_TRUST_BUNDLE, "t")).(*adminv1.TrustBundle).GetInfo()
	if len(shown.GetCrls()) != 2 || shown.GetCrls()[0].GetIssuer() == "" || !shown.GetCrls()[0].GetNextUpdate().IsValid() {
		t.Errorf("info: %v", shown)
	}

	w.put(b)
	if w.snap.bundles.Get("t").trust != first.bundles.Get("t").trust || len(w.snap.Reloaded(first)) != 0 {
		t.Error("unchanged files resulted in another bundle")
	}
	write(t, crl, der(t, w.ca.CRL(t, w.ca.Client(t, "revoked").Leaf)))
	w.put(b)
	if got := w.snap.Reloaded(first); len(got) != 1 || got[0].Name != "t" {
		t.Errorf("Reloaded() = %v", got)
	}
	if u, was := w.snap.upstreams.Get("u"), first.upstreams.Get("u"); u.live != was.live || u.requires == was.requires {
		t.Error("a new list must change only the upstream's requirement")
	}
	if n := w.snap.bundles.Get("t").trust.CRLInfos()[0].Revoked; n != 1 {
		t.Errorf("the list revokes %d", n)
	}

	// Without its list the bundle is down, and does not verify anything.
	if err := os.Remove(crl); err != nil {
		t.Fatal(err)
	}
	w.snap = testCompiler().Restore(context.Background(), w.snap.State())
	if p := w.snap.Problems(); len(p) != 2 || !strings.Contains(p[0].Reason, "crls[0].file") {
		t.Errorf("%v", p)
	}
	if len(w.snap.upstreams.Get("u").live.Endpoints()) != 0 {
		t.Error("an upstream takes traffic whose revocation list is missing")
	}
}

func TestFilesListsEveryPathWithItsResource(t *testing.T) {
	w, dir := newTestbed(t), t.TempDir()
	i := w.ca.Client(t, "one")
	ca, crl := write(t, filepath.Join(dir, "ca"), w.ca.TrustPEM()), write(t, filepath.Join(dir, "crl"), w.ca.CRL(t))
	both, pass := write(t, filepath.Join(dir, "both"), append(i.ChainPEM, encrypted(t, i)...)), write(t, filepath.Join(dir, "pass"), []byte(passphrase))
	bundle := func(name string) *adminv1.TrustBundle {
		return &adminv1.TrustBundle{Name: name, Source: &adminv1.TrustBundle_File{File: ca}, Crls: []*adminv1.Crl{{Source: &adminv1.Crl_File{File: crl}}}}
	}
	w.put(bundle("a"), bundle("b"), fileSource(both, "", pass), w.bundle("inline"))
	got := w.snap.Files()
	for path, want := range map[string]string{
		ca: `trust bundle "a" trust bundle "b"`, crl: `trust bundle "a" trust bundle "b"`, both: `certificate "c"`, pass: `certificate "c"`,
	} {
		var refs []string
		for _, r := range got[path] {
			refs = append(refs, r.String())
		}
		if strings.Join(refs, " ") != want {
			t.Errorf("%s: %v, want %s", path, refs, want)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d paths", len(got))
	}

	c := w.snap.State().Get(adminv1.Kind_KIND_CERTIFICATE, "c")
	ref := store.RefOf(c)
	digest := func(c Compiler) Digest {
		m, err := c.Gather(t.Context(), w.snap, store.Edit{Reread: []store.Ref{ref}}, Needs{})
		if err != nil {
			t.Fatal(err)
		}
		return m.FileDigest(ref)
	}
	if d := digest(testCompiler()); d != w.snap.FileDigest(ref) || d == (Digest{}) {
		t.Error("the digest of unchanged files differs from the live digest")
	}
	if digest(Compiler{}) == w.snap.FileDigest(ref) {
		t.Error("files that may not be read have the digest of the files that were read")
	}
	for _, none := range []store.Ref{{Kind: ref.Kind, Name: "none"}, {Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: "inline"}, {Kind: adminv1.Kind_KIND_ROUTE, Name: "c"}} {
		if w.snap.FileDigest(none) != (Digest{}) {
			t.Errorf("%v has files", none)
		}
	}
}

func TestWarningsAboutABundleAreInTheResponse(t *testing.T) {
	w := newTestbed(t)
	b := w.bundle("t")
	b.Crls = []*adminv1.Crl{{Source: &adminv1.Crl_Pem{Pem: string(certstest.NewCA(t).CRL(t))}}}
	warnings := w.put(b)
	if !slices.ContainsFunc(warnings, func(w invalid.Warning) bool { return w.Field == "r0.crls" }) {
		t.Errorf("no warning of a list that no CA of the bundle signed: %v", warnings)
	}
	if again := w.put(b); len(again) != len(warnings) {
		t.Errorf("written again: %v", again)
	}
}

// The time for decrypting the keys of one request is limited, because each key
// may take up to a second.
func TestAnEditThatDecryptsForTooLongIsRefused(t *testing.T) {
	w := newTestbed(t)
	c := w.client("c")
	c.GetPem().Passphrase = "unneeded" // a key with a passphrase may be encrypted
	m := &Material{certificates: map[string]*certificateMaterial{}}
	testCompiler().gather(t.Context(), m, w.snap, c)
	if said := m.certificates["c"].found.Faults(); len(said) != 0 {
		t.Errorf("%v", said)
	}
	m.deriving = maxDeriving + 1
	testCompiler().gather(t.Context(), m, w.snap, c)
	if said := m.certificates["c"].found.Faults(); len(said) != 1 || said[0].Field != "pem.passphrase" {
		t.Errorf("%v", said)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := testCompiler().Gather(ctx, w.snap, store.Edit{Puts: puts(c)}, Needs{}); err == nil {
		t.Error("the gateway still works on a request that has ended")
	}
}
