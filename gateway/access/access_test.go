package access

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	none     = adminv1.Role_ROLE_UNSPECIFIED
	viewer   = adminv1.Role_ROLE_VIEWER
	operator = adminv1.Role_ROLE_OPERATOR
	admin    = adminv1.Role_ROLE_ADMIN
)

func TestSubjectsHaveOneForm(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for _, tt := range []struct{ in, want string }{
		{"uid:0", "uid:0"}, {"uid:0010", "uid:10"}, {"gid:4294967295", "gid:4294967295"},
		{"DNS:Ops.Example", "DNS:ops.example"}, {"CN=Ops", "CN=Ops"}, {"CN=uid:0", "CN=uid:0"},
		{"spiffe://corp/ci", "spiffe://corp/ci"}, {"URI:spiffe://corp/ci", "spiffe://corp/ci"}, {"URI:https://a/b", "URI:https://a/b"},
		{"IP:::ffff:10.0.0.1", "IP:10.0.0.1"}, {"email:Ops@Corp.Example", "email:Ops@corp.example"},
		{"sha256:" + strings.ToUpper(sum), "sha256:" + sum}, {"sha256:AB:" + sum[2:], "sha256:" + sum},
	} {
		if got, err := ParseSubject(tt.in); got != tt.want || err != nil {
			t.Errorf("%q: %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"", "ops", "uid:", "uid:-1", "uid:root", "uid:4294967296", "gid:1 ", "CN=", "sha256:ab", "sha256:", "DNS:", "DNS:*", "*", "cn=x", "UID:0"} {
		if got, err := ParseSubject(in); err == nil {
			t.Errorf("%q is the subject %q", in, got)
		}
	}
}

// The owner of a certificate chooses its names, so no name may look like a user
// of this machine, a fingerprint or a common name.
func TestCertificateNamesCannotImitateOtherSubjects(t *testing.T) {
	ca := certstest.NewCA(t)
	uris := []string{"uid:0", "gid:0", "sha256:" + strings.Repeat("0", 64), "spiffe://corp/ci"}
	leaf := ca.Leaf(t, pki.LeafOptions{Usage: pki.Client, CommonName: "uid:0", URIs: uris, DNSNames: []string{"Ops.example"}, IPs: []net.IP{net.IPv4(10, 0, 0, 1)}}).Leaf
	sum := sha256.Sum256(leaf.Raw)
	want := []string{
		"DNS:ops.example", "URI:uid:0", "URI:gid:0", "URI:sha256:" + strings.Repeat("0", 64), "spiffe://corp/ci", "IP:10.0.0.1",
		"CN=uid:0", "sha256:" + hex.EncodeToString(sum[:]),
	}
	got := CertificateSubjects(leaf)
	if !slices.Equal(got, want) {
		t.Errorf("subjects %q\nwant %q", got, want)
	}
	for _, s := range got { // a policy accepts each subject in the form in which it is shown
		if parsed, err := ParseSubject(s); parsed != s || err != nil {
			t.Errorf("%q: %q, %v", s, parsed, err)
		}
	}
	many := &x509.Certificate{DNSNames: slices.Repeat([]string{"a.example"}, 10_000)}
	if n := len(CertificateSubjects(many)); n > maxSubjects+2 {
		t.Errorf("%d subjects of a certificate with 10,000 names", n)
	}
}

func TestTheHighestRoleOfACallerApplies(t *testing.T) {
	p, err := ParsePolicy([]byte("# who may do what\nsubjects:\n  uid:1000: viewer\n  gid:27: operator\n  CN=boss: admin\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		who  Caller
		want adminv1.Role
	}{
		{Caller{}, none},
		{Caller{Subjects: []string{"uid:1", "gid:1"}}, none},
		{Caller{Subjects: []string{"uid:1000"}}, viewer},
		{Caller{Subjects: []string{"gid:27", "uid:1000"}}, operator},
		{Caller{Subjects: []string{"uid:1000", "gid:27", "CN=boss"}}, admin},
		{Caller{Subjects: []string{"uid:0"}, Owner: true}, admin},
	} {
		if got := p.Role(&tt.who); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt.who, got, tt.want)
		}
	}
	if (*Policy)(nil).Role(&Caller{}) != admin {
		t.Error("a caller is not an admin although there is no policy")
	}
}

func TestEveryFaultOfAPolicyIsReported(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"", []string{"is empty"}},
		{"subjects:\n", []string{"must hold"}},
		{"subjects: [uid:0]\n", []string{"must hold"}},
		{"subject:\n  uid:0: admin\n", []string{"line 1", "subject"}},
		{"subjects:\n  uid:1: admin\nroles: {}\n", []string{"roles"}},
		{"subjects:\n  uid:1: root\n  user:x: viewer\n  gid:0x1: viewer\n  uid:01: viewer\n  uid:1: viewer\n  uid:2: [viewer]\n", []string{
			`line 2: the role of "uid:1" must be viewer, operator or admin`, `line 3: subject "user:x" must begin with one of`,
			`line 4: subject "gid:0x1" must be gid: and a number`, `line 6: subject "uid:1" has a role on line 5 already`, "line 7: the role",
		}},
		{"subjects:\n  uid:1: viewer\n---\nsubjects:\n  uid:2: admin\n", []string{"more than one document"}},
		{"subjects: {\n", []string{"line "}},
		{"subjects: &a\n  uid:1: *a\n", nil},
		{strings.Repeat("#", maxPolicy+1), []string{"at most"}},
	} {
		p, err := ParsePolicy([]byte(tt.text))
		if err == nil || p != nil {
			t.Errorf("%q is a policy", tt.text)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v; want %q", tt.text, err, want)
			}
		}
	}
}

func TestAnInvalidFileKeepsThePolicy(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file was accepted at the start")
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	put := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("subjects:\n  uid:1: viewer\n")
	c, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	who := &Caller{Subjects: []string{"uid:1"}}
	role, changed := c.Role(who)
	if role != viewer {
		t.Errorf("role %v", role)
	}
	put("subjects:\n  uid:1: emperor\n")
	if did, err := c.Reload(); did || err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("%v, %v", did, err)
	}
	if did, err := c.Reload(); did || err == nil {
		t.Errorf("again: %v, %v", did, err)
	}
	if role, _ := c.Role(who); role != viewer {
		t.Errorf("role %v after an invalid file", role)
	}
	select {
	case <-changed:
		t.Error("an invalid file is reported as a change")
	default:
	}
	put("subjects: {}\n")
	if did, err := c.Reload(); !did || err != nil {
		t.Errorf("%v, %v", did, err)
	}
	<-changed
	if role, _ := c.Role(who); role != none {
		t.Errorf("role %v", role)
	}
	if did, err := c.Reload(); did || err != nil {
		t.Errorf("the same file: %v, %v", did, err)
	}
}

func TestAMethodWithoutARightIsRefused(t *testing.T) {
	services := adminv1.File_drawbridge_admin_v1_admin_service_proto.Services()
	if rights, err := DeclaredRights(services.Get(0)); err != nil || rights["/drawbridge.admin.v1.AdminService/Apply"] != adminv1.Right_RIGHT_WRITE {
		t.Errorf("%v, %v", rights, err)
	}
	if _, err := DeclaredRights(silent{services.Get(0)}); err == nil {
		t.Error("methods without options have rights")
	}
}

// silent describes a service whose methods have no options.
type silent struct{ protoreflect.ServiceDescriptor }

func (s silent) Methods() protoreflect.MethodDescriptors {
	return silentMethods{s.ServiceDescriptor.Methods()}
}

type silentMethods struct{ protoreflect.MethodDescriptors }

func (s silentMethods) Get(i int) protoreflect.MethodDescriptor {
	return silentMethod{s.MethodDescriptors.Get(i)}
}

type silentMethod struct{ protoreflect.MethodDescriptor }

func (silentMethod) Options() protoreflect.ProtoMessage { return nil }

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte("subjects:\n  uid:1: viewer\n"))
	f.Add([]byte("subjects: &a {? *a : b}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePolicy(text)
		if (p == nil) != (err != nil) {
			t.Errorf("%v, %v", p, err)
		}
	})
}
