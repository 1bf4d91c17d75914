package admin

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/drawbridge-gateway/drawbridge/gateway/access"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestAPanicIsAnsweredAndLogged(t *testing.T) {
	r := start(t)
	r.gateway.before = func(context.Context, store.Edit) { panic("the reason: -----BEGIN PRIVATE " + "KEY-----") }
	_, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream("payments")})
	wantCode(t, err, codes.Internal)
	if m := status.Convert(err).Message(); m != "internal error; the gateway's log has the details" {
		t.Errorf("message = %q", m)
	}
	log := r.log.String()
	if !strings.Contains(log, "panic in a handler") || !strings.Contains(log, "intercept_test.go") {
		t.Errorf("no stack in the log:\n%s", log)
	}
	if strings.Contains(log, "PRIVATE KEY") {
		t.Error("key material in the log")
	}
	r.gateway.before = nil
	if _, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream("payments")}); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

func TestWritesAreAuditedAtInfoAndReadsAtDebug(t *testing.T) {
	r := start(t)
	ctx := t.Context()
	if _, err := r.admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: upstream("payments")}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: upstream("x"), Options: &adminv1.WriteOptions{DryRun: true}}); err != nil {
		t.Fatal(err)
	}
	_, err := r.admin.DeleteUpstream(ctx, &adminv1.DeleteUpstreamRequest{Name: "gone"})
	wantCode(t, err, codes.NotFound)
	if _, err := r.admin.GetUpstream(ctx, &adminv1.GetUpstreamRequest{Name: "payments"}); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(r.log.String()) {
		if _, text, ok := strings.Cut(line, "["); ok {
			lines = append(lines, "["+strings.TrimSpace(text))
		}
	}
	who := fmt.Sprintf("client=uid:%d", os.Getuid())
	want := []string{
		`[INFO]  admin: write: method=/drawbridge.admin.v1.AdminService/PutUpstream ` + who + ` code=OK revision=1`,
		`[INFO]  admin: write: method=/drawbridge.admin.v1.AdminService/PutUpstream ` + who + ` code=OK dry_run=true revision=1`,
		`[INFO]  admin: write: method=/drawbridge.admin.v1.AdminService/DeleteUpstream ` + who + ` code=NotFound error="name: there is no upstream \"gone\""`,
		`[DEBUG] admin: read: method=/drawbridge.admin.v1.AdminService/GetUpstream ` + who + ` code=OK`,
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("log is\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestAMessageAboveTheLimitIsRefused(t *testing.T) {
	r := start(t)
	_, err := r.admin.PutTrustBundle(t.Context(), &adminv1.PutTrustBundleRequest{TrustBundle: &adminv1.TrustBundle{
		Name: "big", Source: &adminv1.TrustBundle_Pem{Pem: strings.Repeat("x", maxRequest)},
	}})
	wantCode(t, err, codes.ResourceExhausted)
	_, err = r.admin.PutTrustBundle(t.Context(), &adminv1.PutTrustBundleRequest{TrustBundle: &adminv1.TrustBundle{
		Name: "big", Source: &adminv1.TrustBundle_Pem{Pem: strings.Repeat("x", store.MaxResourceBytes-1024)},
	}})
	if err != nil {
		t.Errorf("just below the limit: %v", err)
	}
	if _, err := r.admin.GetTrustBundle(t.Context(), &adminv1.GetTrustBundleRequest{Name: "big"}); err != nil {
		t.Errorf("a client with gRPC's default limit cannot read it: %v", err)
	}
	_, err = r.admin.PutTrustBundle(t.Context(), &adminv1.PutTrustBundleRequest{TrustBundle: &adminv1.TrustBundle{
		Name: "bigger", Source: &adminv1.TrustBundle_Pem{Pem: strings.Repeat("x", store.MaxResourceBytes)},
	}})
	wantCode(t, err, codes.ResourceExhausted)
	if r.gateway.State().Revision() != 1 {
		t.Errorf("revision %d: the write below the limit was refused, or the one above it was accepted", r.gateway.State().Revision())
	}
}

func TestCallWithoutACallerIsUnauthenticated(t *testing.T) {
	s := New(Options{Gateway: newFake()})
	handler := func(context.Context, any) (any, error) {
		t.Error("the handler was called")
		return nil, nil
	}
	info := &grpc.UnaryServerInfo{FullMethod: adminv1.AdminService_GetConfig_FullMethodName}
	for _, ctx := range []context.Context{t.Context(), peer.NewContext(t.Context(), &peer.Peer{})} {
		_, err := s.unary(ctx, &adminv1.GetConfigRequest{}, info, handler)
		wantCode(t, err, codes.Unauthenticated)
		if d := detail[*errdetails.ErrorInfo](t, err); d.GetDomain() != "drawbridge" {
			t.Errorf("ErrorInfo = %v", d)
		}
	}
	// A known caller calls a method without a rule.
	known := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: caller{Caller: &access.Caller{Principal: "uid:0"}}})
	_, err := s.unary(known, nil, &grpc.UnaryServerInfo{FullMethod: "/drawbridge.admin.v1.AdminService/Unknown"}, handler)
	wantCode(t, err, codes.Unimplemented)
}

func TestAUnaryCallEndsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Gateway: newFake()})
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: caller{Caller: &access.Caller{Principal: "uid:0"}}})
		info := &grpc.UnaryServerInfo{FullMethod: adminv1.AdminService_Apply_FullMethodName}
		began := time.Now()
		_, err := s.unary(ctx, &adminv1.ApplyRequest{}, info, func(ctx context.Context, _ any) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		wantCode(t, err, codes.DeadlineExceeded)
		if took := time.Since(began); took != unaryTimeout {
			t.Errorf("it took %v", took)
		}
	})
}

// No answer and no log line contains key material that a caller sent, in any
// field.
func TestAPrivateKeyIsAcceptedAndNeverRevealed(t *testing.T) {
	const marker = "PRIVATE" + " KEY"
	const body = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"
	key := "-----BEGIN " + marker + "-----\n" + body + "\n-----END " + marker + "-----\n"
	r := start(t)
	ctx := t.Context()
	watch, err := r.admin.WatchConfig(ctx, &adminv1.WatchConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	var texts []string
	see := func(m fmt.Stringer, err error) {
		texts = append(texts, m.String(), fmt.Sprint(err), fmt.Sprint(status.Convert(err).Proto()))
	}
	cert := func(name string) *adminv1.Certificate {
		return &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: "chain", PrivateKey: key}}}
	}
	see(r.admin.PutCertificate(ctx, &adminv1.PutCertificateRequest{Certificate: cert("client")}))
	see(watch.Recv())
	see(r.admin.Apply(ctx, &adminv1.ApplyRequest{Resources: []*adminv1.Resource{store.Wrap(cert("server"))}}))
	see(watch.Recv())
	see(r.admin.GetCertificate(ctx, &adminv1.GetCertificateRequest{Name: "client"}))
	see(r.admin.ListCertificates(ctx, &adminv1.ListCertificatesRequest{}))
	see(r.admin.GetConfig(ctx, &adminv1.GetConfigRequest{}))
	see(r.status.GetStatus(ctx, &adminv1.GetStatusRequest{}))
	if r.gateway.State().Get(adminv1.Kind_KIND_CERTIFICATE, "client").(*adminv1.Certificate).GetPem().GetPrivateKey() != key {
		t.Fatal("the key did not go in")
	}
	// Keys in fields that are not for keys.
	see(r.admin.PutCertificate(ctx, &adminv1.PutCertificateRequest{Certificate: cert(key)}))
	see(r.admin.GetCertificate(ctx, &adminv1.GetCertificateRequest{Name: key}))
	see(r.admin.DeleteCertificate(ctx, &adminv1.DeleteCertificateRequest{Name: key}))
	see(r.admin.PutListener(ctx, &adminv1.PutListenerRequest{Listener: listener("web", key)}))
	see(r.admin.ListUpstreams(ctx, &adminv1.ListUpstreamsRequest{PageToken: key}))
	see(r.admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: &adminv1.Upstream{Name: "u", Labels: map[string]string{key: strings.Repeat("x", 300)}}}))
	texts = append(texts, r.log.String())
	for _, text := range texts {
		if strings.Contains(text, marker) || strings.Contains(text, body) {
			t.Errorf("key material was revealed: %s", text)
		}
	}
}
