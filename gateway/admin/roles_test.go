package admin

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/access"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// withPolicy makes a server enforce a policy file.
func withPolicy(t *testing.T, text string) (file string, change func(*Options)) {
	t.Helper()
	file = writeFile(t, "policy.yaml", []byte(text))
	return file, func(o *Options) {
		c, err := access.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		o.Access = c
	}
}

// A policy that gives one caller of each transport each role.
const everyRole = `subjects:
  uid:71001: viewer
  gid:71002: operator
  uid:71003: admin
  spiffe://corp/viewer: viewer
  DNS:viewer.example: viewer
  CN=operator: operator
  DNS:admin.example: admin
`

// The test derives the rights of each role from the descriptors independently. It
// compares them with the server's answer to every method, for callers of every
// transport. Requests are empty. Callers with the right get any answer except
// PERMISSION_DENIED.
func TestEveryMethodForEveryRoleOverEveryTransport(t *testing.T) {
	_, policy := withPolicy(t, everyRole)
	r := start(t, policy)
	open := openSocket(t, r)
	ca := newCA(t)
	_, address := overTCP(t, r, ca)
	tcp := func(o pki.LeafOptions) func(*testing.T) *grpc.ClientConn {
		return func(t *testing.T) *grpc.ClientConn { return dialTCP(t, address, ca, o) }
	}
	unix := func(uid int, gids ...int) func(*testing.T) *grpc.ClientConn {
		return func(t *testing.T) *grpc.ClientConn { return connAs(t, open, uid, gids...) }
	}
	may := map[adminv1.Role]string{
		adminv1.Role_ROLE_UNSPECIFIED: "",
		adminv1.Role_ROLE_VIEWER:      "RIGHT_READ",
		adminv1.Role_ROLE_OPERATOR:    "RIGHT_READ RIGHT_WRITE RIGHT_OPERATE",
		adminv1.Role_ROLE_ADMIN:       "RIGHT_READ RIGHT_WRITE RIGHT_OPERATE RIGHT_SECRET",
	}
	for _, tt := range []struct {
		name string
		role adminv1.Role
		dial func(*testing.T) *grpc.ClientConn
	}{
		{"unix/the gateway's own user", adminv1.Role_ROLE_ADMIN, func(t *testing.T) *grpc.ClientConn { return dial(t, r.socket) }},
		{"unix/stranger", adminv1.Role_ROLE_UNSPECIFIED, unix(71000, 71000)},
		{"unix/viewer by user", adminv1.Role_ROLE_VIEWER, unix(71001, 71000)},
		{"unix/operator by group", adminv1.Role_ROLE_OPERATOR, unix(71000, 71000, 71009, 71002)},
		{"unix/operator by main group", adminv1.Role_ROLE_OPERATOR, unix(71001, 71002)},
		{"unix/admin by user", adminv1.Role_ROLE_ADMIN, unix(71003, 71000)},
		{"tcp/stranger", adminv1.Role_ROLE_UNSPECIFIED, tcp(pki.LeafOptions{CommonName: "stranger", URIs: []string{"uid:71003"}})},
		{"tcp/viewer by SPIFFE ID", adminv1.Role_ROLE_VIEWER, tcp(pki.LeafOptions{URIs: []string{"spiffe://corp/viewer"}})},
		{"tcp/viewer by DNS name", adminv1.Role_ROLE_VIEWER, tcp(pki.LeafOptions{DNSNames: []string{"viewer.example"}})},
		{"tcp/operator by common name", adminv1.Role_ROLE_OPERATOR, tcp(pki.LeafOptions{CommonName: "operator"})},
		{"tcp/admin by DNS name", adminv1.Role_ROLE_ADMIN, tcp(pki.LeafOptions{CommonName: "operator", DNSNames: []string{"ADMIN.example"}})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := tt.dial(t)
			defer conn.Close()
			calls := 0
			for _, f := range apiFiles() {
				for i := range f.Services().Len() {
					methods := f.Services().Get(i).Methods()
					for j := range methods.Len() {
						calls++
						right := fmt.Sprint(protoRight(methods.Get(j)))
						err := callEmpty(t, conn, methods.Get(j))
						may := strings.Contains(may[tt.role], right)
						if tt.role == adminv1.Role_ROLE_OPERATOR && adminsOnly[methods.Get(j).Name()] {
							may = false
						}
						if denied := status.Code(err) == codes.PermissionDenied; denied == may {
							t.Errorf("%s needs %s, %v answers: %v", methods.Get(j).FullName(), right, tt.role, err)
						}
					}
				}
			}
			if calls < 30 {
				t.Errorf("only %d methods were called", calls)
			}
			s, err := adminv1.NewStatusServiceClient(conn).GetStatus(t.Context(), &adminv1.GetStatusRequest{})
			if tt.role == adminv1.Role_ROLE_UNSPECIFIED {
				if text := status.Convert(err).Message(); !strings.Contains(text, "has no role") || !strings.Contains(text, "71000") && !strings.Contains(text, "CN=stranger") {
					t.Errorf("the error does not list the subjects of a stranger: %v", err)
				}
			} else if err != nil || s.GetCaller().GetRole() != tt.role || s.GetCaller().GetPrincipal() == "" {
				t.Errorf("GetStatus says the caller is %v, %v", s.GetCaller(), err)
			}
		})
	}
}

var adminsOnly = map[protoreflect.Name]bool{"PutCertificate": true, "DeleteCertificate": true, "PutTrustBundle": true, "DeleteTrustBundle": true}

func apiFiles() []protoreflect.FileDescriptor {
	return []protoreflect.FileDescriptor{
		adminv1.File_drawbridge_admin_v1_admin_service_proto,
		adminv1.File_drawbridge_admin_v1_status_service_proto,
		adminv1.File_drawbridge_admin_v1_fleet_service_proto,
		adminv1.File_drawbridge_admin_v1_diagnostics_service_proto,
	}
}

func protoRight(m protoreflect.MethodDescriptor) adminv1.Right {
	var right adminv1.Right
	m.Options().ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.FullName() == adminv1.E_Right.TypeDescriptor().FullName() {
			right = adminv1.Right(v.Enum())
		}
		return true
	})
	return right
}

// callEmpty calls a method with an empty message, and returns the error of the first
// answer.
func callEmpty(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	name := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingServer() {
		return conn.Invoke(ctx, name, in, out)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(in); err != nil {
		return stream.RecvMsg(out)
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if h, err := stream.Header(); err != nil || h != nil {
		return err // the stream has begun
	}
	return stream.RecvMsg(out)
}

// openSocket serves on a second socket, which every user may connect to.
func openSocket(t *testing.T, r *running) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "admin.sock")
	lis, err := unixsocket.Listen(path, unixsocket.Options{Mode: 0o666})
	if err != nil {
		t.Fatal(err)
	}
	r.alsoServe(t, lis)
	return path
}

// connAs returns a client that connects as another user.
func connAs(t *testing.T, socket string, uid int, gids ...int) *grpc.ClientConn {
	t.Helper()
	first := make(chan net.Conn, 1)
	first <- dialAs(t, socket, uid, gids...)
	conn, err := grpc.NewClient("passthrough:admin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-first:
				return c, nil
			default:
				return nil, fmt.Errorf("the connection was closed")
			}
		}))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// An operator may change traffic, but no request lets an operator change a key or an
// anchor.
func TestAnOperatorChangesNoCertificatesAndTrust(t *testing.T) {
	_, policy := withPolicy(t, everyRole)
	r := start(t, policy)
	ca := newCA(t)
	_, address := overTCP(t, r, ca)
	ctx := t.Context()
	bundle := func(name string) *adminv1.TrustBundle {
		return &adminv1.TrustBundle{Name: name, Source: &adminv1.TrustBundle_System{System: &adminv1.SystemRoots{}}}
	}
	if _, err := r.admin.PutTrustBundle(ctx, &adminv1.PutTrustBundleRequest{TrustBundle: bundle("roots")}); err != nil {
		t.Fatal(err)
	}
	api := adminv1.NewAdminServiceClient(dialTCP(t, address, ca, pki.LeafOptions{CommonName: "operator"}))
	if _, err := api.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: upstream("u")}); err != nil {
		t.Error(err)
	}
	if _, err := api.Apply(ctx, &adminv1.ApplyRequest{Resources: []*adminv1.Resource{store.Wrap(upstream("v"))}, Prune: &adminv1.Prune{Kinds: []adminv1.Kind{adminv1.Kind_KIND_UPSTREAM}}}); err != nil {
		t.Error(err)
	}
	before := r.gateway.State().Revision()
	_, err := r.admin.DeleteTrustBundle(ctx, &adminv1.DeleteTrustBundleRequest{Name: "roots"})
	if err != nil {
		t.Fatal(err)
	}
	after := r.gateway.State().Revision()
	cert := &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{}}}
	for name, call := range map[string]func() error{
		"PutCertificate": func() error {
			_, err := api.PutCertificate(ctx, &adminv1.PutCertificateRequest{Certificate: cert})
			return err
		},
		"DeleteCertificate": func() error {
			_, err := api.DeleteCertificate(ctx, &adminv1.DeleteCertificateRequest{Name: "none"})
			return err
		},
		"PutTrustBundle": func() error {
			_, err := api.PutTrustBundle(ctx, &adminv1.PutTrustBundleRequest{TrustBundle: bundle("mine"), Options: &adminv1.WriteOptions{DryRun: true}})
			return err
		},
		"Apply": func() error {
			_, err := api.Apply(ctx, &adminv1.ApplyRequest{Resources: []*adminv1.Resource{store.Wrap(upstream("w")), store.Wrap(bundle("mine"))}})
			return err
		},
		"Apply with deletes": func() error {
			_, err := api.Apply(ctx, &adminv1.ApplyRequest{Deletes: []*adminv1.ResourceDelete{{Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: "roots"}}})
			return err
		},
		"Apply with prune": func() error {
			_, err := api.Apply(ctx, &adminv1.ApplyRequest{Resources: []*adminv1.Resource{store.Wrap(upstream("v"))}, Prune: &adminv1.Prune{Kinds: []adminv1.Kind{adminv1.Kind_KIND_CERTIFICATE}}})
			return err
		},
		"Rollback": func() error { _, err := api.Rollback(ctx, &adminv1.RollbackRequest{Revision: &before}); return err },
	} {
		if err := call(); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "certificates and trust bundles") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now := r.gateway.State().Revision(); now != after {
		t.Errorf("revision %d became %d", after, now)
	}
}

// A viewer may probe upstreams as they are configured, but may not choose where the
// gateway connects or which request it sends.
func TestAViewerChoosesNoProbe(t *testing.T) {
	_, policy := withPolicy(t, everyRole)
	r := start(t, policy)
	ca := newCA(t)
	_, address := overTCP(t, r, ca)
	diagnostics := adminv1.NewDiagnosticsServiceClient(dialTCP(t, address, ca, pki.LeafOptions{DNSNames: []string{"viewer.example"}}))
	for _, tt := range []struct {
		req    *adminv1.ProbeUpstreamRequest
		denied bool
	}{
		{&adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: "u"}}, false},
		{&adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: "u"}, Request: "GET /"}, true},
		{&adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Upstream{Upstream: upstream("u")}}, true},
	} {
		_, err := diagnostics.ProbeUpstream(t.Context(), tt.req)
		if denied := status.Code(err) == codes.PermissionDenied; denied != tt.denied {
			t.Errorf("%v: %v", tt.req, err)
		}
	}
}

// Removing a role also ends the streams that the role allowed.
func TestAStreamEndsWithItsCallersRole(t *testing.T) {
	file, policy := withPolicy(t, everyRole)
	var controller *access.Controller
	r := start(t, policy, func(o *Options) { controller = o.Access })
	ca := newCA(t)
	_, address := overTCP(t, r, ca)
	watch := func(name string) (adminv1.AdminService_WatchConfigClient, error) {
		conn := dialTCP(t, address, ca, pki.LeafOptions{DNSNames: []string{name}})
		stream, err := adminv1.NewAdminServiceClient(conn).WatchConfig(t.Context(), &adminv1.WatchConfigRequest{})
		if err != nil {
			return nil, err
		}
		for {
			m, err := stream.Recv()
			if err != nil || m.GetSynced() {
				return stream, err
			}
		}
	}
	leaves, err := watch("viewer.example")
	if err != nil {
		t.Fatal(err)
	}
	stays, err := watch("admin.example")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("subjects:\n  DNS:admin.example: viewer\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := controller.Reload(); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if _, err := leaves.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the stream did not end: %v", err)
	}
	if _, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream("u")}); err != nil {
		t.Fatal(err)
	}
	if _, err := stays.Recv(); err != nil {
		t.Errorf("the other stream ended: %v", err)
	}
}
