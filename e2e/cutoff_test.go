// A change that cuts off its own author from the admin service over TCP is undone in
// time, automatically: a wrong CA, a listener that moves, a policy that removes the
// author. Files that are not part of a revision are not restored.

package e2e

import (
	"context"
	"crypto/tls"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// An author calls the admin service of a gateway over TCP, with a connection for each call.
type author struct {
	t       *testing.T
	address string
	config  *tls.Config
}

func (a *author) call(f func(context.Context, adminv1.AdminServiceClient) error) error {
	ctx, cancel := context.WithTimeout(a.t.Context(), testTimeout)
	defer cancel()
	conn := dialAdmin(a.t, a.address, credentials.NewTLS(a.config.Clone()))
	defer conn.Close()
	return f(ctx, adminv1.NewAdminServiceClient(conn))
}

// reaches returns nil if the author gets an answer.
func (a *author) reaches() error {
	return a.call(func(ctx context.Context, c adminv1.AdminServiceClient) error {
		_, err := c.ListListeners(ctx, &adminv1.ListListenersRequest{})
		return err
	})
}

// apply applies a change that is undone after a few seconds.
func (a *author) apply(resources ...proto.Message) error {
	return a.call(func(ctx context.Context, c adminv1.AdminServiceClient) error {
		_, err := c.Apply(ctx, &adminv1.ApplyRequest{Resources: wrap(a.t, resources), Options: &adminv1.WriteOptions{ConfirmWithin: durationpb.New(3 * time.Second)}})
		return err
	})
}

// The author reaches the admin service through the gateway: a listener requires
// the author's certificate, and an upstream presents the gateway's certificate.
func TestAChangeThatCutsItsAuthorOffFromTheAdminServiceIsUndone(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newCA(t, "another CA")
	g := startGateway(t, adminTCPFlags(t, a)...)
	admin := g.logged(adminUp)
	host := ownHost().String()
	door := func(address string, access *adminv1.ClientAccess) *adminv1.Listener {
		return &adminv1.Listener{Name: "door", Address: address, Protocol: protocolTCP, Upstream: "admin", Access: access, Tls: &adminv1.ServerTls{
			Certificates: []string{"server"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"authors"}, Alpn: []string{"h2"},
		}}
	}
	at := host + ":7643"
	toAdmin := a.settings()
	toAdmin.Alpn = []string{"h2"}
	g.apply(trustBundle("authors", a.ca), trustBundle("ca", a.ca), certificate("server", a.server), certificate("client", a.client),
		upstream("admin", toAdmin, admin), door(at, nil))
	who := &author{t, at, a.clientConfig(t)}
	if err := who.reaches(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change proto.Message
	}{
		{"a CA that has not issued the author's certificate", trustBundle("authors", stranger)},
		{"a CA that has not issued the admin service's certificate", trustBundle("ca", stranger)},
		{"a listener that moves away", door(host+":7644", nil)},
		{"an access list that excludes the author", door(at, &adminv1.ClientAccess{Deny: []string{"127.0.0.0/8"}})},
	} {
		before := g.getStatus().GetRevision()
		// The answer may be lost with the author's connection.
		if err := who.apply(c.change); err != nil && status.Code(err) != codes.Unavailable {
			t.Fatalf("%s: %v", c.name, err)
		}
		made, err := g.admin.GetRevision(longContext(t), &adminv1.GetRevisionRequest{Revision: before + 1})
		if err != nil || made.GetExpireTime() == nil || made.GetTransport() != adminv1.Transport_TRANSPORT_TCP {
			t.Fatalf("%s: %v, %v", c.name, made, err)
		}
		if err := who.reaches(); err == nil && g.getStatus().GetPending() != nil {
			t.Errorf("%s: the author was not cut off", c.name)
		}
		eventually(t, "the author is back after "+c.name, func() bool { return who.reaches() == nil })
		if s := g.getStatus(); s.GetRevision() != before+2 || s.GetPending() != nil {
			t.Errorf("%s: revision %d after %d, pending %v", c.name, s.GetRevision(), before, s.GetPending())
		}
	}

	// A listener cannot take the admin service's own port, so this change fails at once.
	_, port, _ := net.SplitHostPort(admin)
	before := g.getStatus().GetRevision()
	for _, address := range []string{admin, "0.0.0.0:" + port, "[::]:" + port} {
		if err := who.apply(door(address, nil)); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("a listener on the admin service's address, as %s: %v", address, err)
		}
	}
	if s := g.getStatus(); s.GetRevision() != before || s.GetPending() != nil || who.reaches() != nil {
		t.Errorf("revision %d after %d, pending %v, %v", s.GetRevision(), before, s.GetPending(), who.reaches())
	}
}

// The files of the admin service are not part of a revision. If such a file removes the
// author while a change is pending, the change is undone, but the file stays.
func TestAChangeIsUndoneIfItsAuthorIsRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	policy := func(subject string) []byte { return []byte("subjects:\n  CN=" + subject + ": admin\n") }
	for name, c := range map[string]struct {
		file      string // the path in the gateway's directory
		good, bad []byte
		denied    codes.Code
	}{
		"by the policy":    {"policy.yaml", policy("e2e client"), policy("another"), codes.PermissionDenied},
		"by the client CA": {"client-ca.pem", a.ca.RootPEM(), newCA(t, "another CA").RootPEM(), codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			flags := adminTCPFlags(t, a)
			writeFile(t, filepath.Join(dir, "client-ca.pem"), a.ca.RootPEM())
			writeFile(t, filepath.Join(dir, "policy.yaml"), policy("e2e client"))
			writeFile(t, filepath.Join(dir, c.file), c.good)
			g := startGateway(t, append(flags, "--admin-client-ca", filepath.Join(dir, "client-ca.pem"), "--admin-policy", filepath.Join(dir, "policy.yaml"))...)
			who := &author{t, g.logged(adminUp), a.clientConfig(t)}
			if err := who.apply(plainUpstream("u", "127.0.0.1:1")); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(dir, c.file), c.bad)
			g.signal(syscall.SIGHUP)
			eventually(t, "the author is removed", func() bool { return status.Code(who.reaches()) == c.denied })
			err := who.call(func(ctx context.Context, client adminv1.AdminServiceClient) error {
				_, err := client.Confirm(ctx, &adminv1.ConfirmRequest{Revision: 1})
				return err
			})
			if status.Code(err) != c.denied {
				t.Errorf("the author confirms: %v", err)
			}
			eventually(t, "the change is undone", func() bool { return g.getStatus().GetPending() == nil })
			if s := g.getStatus(); s.GetRevision() != 2 || s.GetCounts().GetUpstreams() != 0 {
				t.Errorf("revision %d with %v", s.GetRevision(), s.GetCounts())
			}
			if err := who.reaches(); status.Code(err) != c.denied {
				t.Errorf("after the change was undone: %v", err)
			}
			// Once the old content is restored, the author has access again.
			writeFile(t, filepath.Join(dir, c.file), c.good)
			g.signal(syscall.SIGHUP)
			eventually(t, "the author is back", func() bool { return who.reaches() == nil })
		})
	}
}
