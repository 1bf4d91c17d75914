package admin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/audit"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A request that is rejected before the gateway sees it is recorded too, with the caller
// and its address, and without key material.
func TestDenialsProbesAndRefusedWritesAreRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Options{Path: path, Required: true, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	_, policy := withPolicy(t, everyRole)
	r := start(t, policy, func(o *Options) { o.Audit = log })
	ca := newCA(t)
	_, address := overTCP(t, r, ca)
	dial := func(o pki.LeafOptions) *grpc.ClientConn { return dialTCP(t, address, ca, o) }
	ctx := t.Context()
	viewer, operator := dial(pki.LeafOptions{DNSNames: []string{"viewer.example"}, CommonName: "v"}), dial(pki.LeafOptions{CommonName: "operator"})
	const key = "-----BEGIN PRIVATE" + " KEY-----"
	put := func(conn *grpc.ClientConn, name string, o *adminv1.WriteOptions) {
		_, _ = adminv1.NewAdminServiceClient(conn).PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: upstream(name), Options: o})
	}
	put(viewer, "u", nil)                                                            // denied
	_ = viewer.Invoke(ctx, "/no.such.Service/M", &emptypb.Empty{}, &emptypb.Empty{}) // denied
	_, _ = adminv1.NewStatusServiceClient(viewer).GetStatus(ctx, &adminv1.GetStatusRequest{})
	_, _ = adminv1.NewDiagnosticsServiceClient(viewer).ProbeUpstream(ctx, &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: "u"}})
	put(operator, "u", &adminv1.WriteOptions{DryRun: true, Comment: key})
	put(operator, "u", nil) // recorded by the gateway, not by this package
	_, _ = adminv1.NewAdminServiceClient(operator).Apply(ctx, &adminv1.ApplyRequest{Resources: []*adminv1.Resource{store.Wrap(upstream("w")), {}}})
	_, _ = adminv1.NewDiagnosticsServiceClient(operator).FlushSessions(ctx, &adminv1.FlushSessionsRequest{Upstream: key})
	diagnostics := adminv1.NewDiagnosticsServiceClient(operator)
	_, _ = diagnostics.CloseConnections(ctx, &adminv1.CloseConnectionsRequest{ConnectionFilter: &adminv1.ConnectionFilter{Listeners: []string{"db"}, ClientIdentities: []string{"CN=a"}}})
	_, _ = diagnostics.CloseConnections(ctx, &adminv1.CloseConnectionsRequest{All: true})
	_, _ = diagnostics.DrainConnections(ctx, &adminv1.DrainConnectionsRequest{ClientIdentities: []string{"CN=b"}})
	_, _ = adminv1.NewDiagnosticsServiceClient(viewer).CloseConnections(ctx, &adminv1.CloseConnectionsRequest{All: true})
	_, _ = adminv1.NewStatusServiceClient(viewer).ListConnections(ctx, &adminv1.ListConnectionsRequest{}) // a read is not recorded
	log.Close(ctx)

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), key) {
		t.Error("key material is in the log")
	}
	want := []string{
		"cert:CN=v TCP PutUpstream [] PERMISSION_DENIED",
		"cert:CN=v TCP M [] UNIMPLEMENTED",
		"cert:CN=v TCP ProbeUpstream [upstream u] NOT_FOUND",
		"cert:CN=operator TCP PutUpstream [upstream u] INVALID_ARGUMENT",
		"cert:CN=operator TCP Apply [upstream w] INVALID_ARGUMENT",
		"cert:CN=operator TCP FlushSessions [upstream (left out: it holds key material)] NOT_FOUND",
		"cert:CN=operator TCP CloseConnections [listener db] OK listeners=[db] client_identities=[CN=a]",
		"cert:CN=operator TCP CloseConnections [] OK all",
		"cert:CN=operator TCP DrainConnections [] OK client_identities=[CN=b]",
		"cert:CN=v TCP CloseConnections [] PERMISSION_DENIED",
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		var rec audit.Record
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(rec.Address, "127.0.0.1:") || rec.Error == "" && rec.Result != "OK" {
			t.Errorf("%s", line)
		}
		got = append(got, strings.Join([]string{rec.Principal, rec.Transport, shortMethod(rec.Method), "[" + strings.Join(rec.Resources, ", ") + "]", strings.TrimRight(rec.Result+" "+rec.Selection, " ")}, " "))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("recorded:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
