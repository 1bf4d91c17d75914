// A state of realistic size can be applied, read, listed and watched by clients
// that accept messages of at most 4 MiB, gRPC's default. `make scale` runs this
// test with 10,000 resources of each kind.

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// sized returns the number of resources: DRAWBRIDGE_SCALE if it is set, or else
// usual.
func sized(t testing.TB, usual int) int {
	text := os.Getenv("DRAWBRIDGE_SCALE")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("DRAWBRIDGE_SCALE: %v", err)
	}
	return n
}

// padding returns labels of the given size.
func padding(bytes int) map[string]string {
	labels := map[string]string{}
	for i := 0; bytes > 0; i++ {
		labels[fmt.Sprint("l", i)] = strings.Repeat("x", min(bytes, 250))
		bytes -= 250
	}
	return labels
}

// patientCli runs the command line with a timeout for a large state.
func (g *gateway) patientCli(args ...string) result {
	g.t.Helper()
	cmd := exec.CommandContext(scaleContext(g.t), program(g.t), append(args, "--admin", "unix:"+g.socket)...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	dieWithParent(cmd)
	if err := cmd.Run(); cmd.ProcessState == nil {
		g.t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func scaleContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// listed counts the entries of a list, page by page. It fails the test if the
// size of a page is close to the limit of clients.
func listed[M proto.Message](t testing.TB, page func(token string) (answer M, entries int, next string, err error)) int {
	t.Helper()
	all := 0
	for token := ""; ; {
		answer, entries, next, err := page(token)
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(answer); size > 2<<20 {
			t.Errorf("a page of %T has %d bytes", answer, size)
		}
		all += entries
		if next == "" {
			return all
		}
		token = next
	}
}

func TestManyLargeCertificates(t *testing.T) {
	t.Parallel()
	n := sized(t, 3000)
	a := newAuthority(t)
	g := startGateway(t)
	ctx := scaleContext(t)
	req := &adminv1.ApplyRequest{Prune: &adminv1.Prune{Kinds: []adminv1.Kind{adminv1.Kind_KIND_CERTIFICATE}}}
	for i := range n {
		c := certificate(fmt.Sprintf("c-%05d", i), a.client)
		c.Labels = padding(7<<10 - len(a.client.ChainPEM))
		req.Resources = append(req.Resources, &adminv1.Resource{Kind: &adminv1.Resource_Certificate{Certificate: c}})
	}
	if _, err := g.admin.Apply(ctx, req); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, func(token string) (*adminv1.GetConfigResponse, int, string, error) {
		r, err := g.admin.GetConfig(ctx, &adminv1.GetConfigRequest{PageToken: token})
		return r, len(r.GetResources()), r.GetNextPageToken(), err
	}); got != n {
		t.Errorf("GetConfig has %d resources", got)
	}
	if got := listed(t, func(token string) (*adminv1.ListCertificatesResponse, int, string, error) {
		r, err := g.admin.ListCertificates(ctx, &adminv1.ListCertificatesRequest{PageToken: token})
		return r, len(r.GetCertificates()), r.GetNextPageToken(), err
	}); got != n {
		t.Errorf("ListCertificates has %d", got)
	}
	watch, err := g.admin.WatchConfig(ctx, &adminv1.WatchConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	state := func() int {
		seen := 0
		for {
			m, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if size := proto.Size(m); size > 256<<10 {
				t.Errorf("a message of the watch has %d bytes", size)
			}
			if seen += len(m.GetResources()); m.GetSynced() {
				return seen
			}
		}
	}
	if got := state(); got != n {
		t.Errorf("the watch has %d resources", got)
	}

	// The command line reads everything, and applies it again.
	all := g.patientCli("get", "all", "-o", "json")
	if all.code != 0 || strings.Count(all.stdout, `"kind": "Certificate"`) != n {
		t.Fatalf("drawbridge get all: %d certificates, exit code %d: %s", strings.Count(all.stdout, `"kind": "Certificate"`), all.code, all.stderr)
	}
	file := writeFile(t, filepath.Join(t.TempDir(), "all.json"), []byte(strings.ReplaceAll(all.stdout, `"l0"`, `"k0"`)))
	if r := g.patientCli("apply", "--prune", "-f", file); r.code != 0 || !strings.Contains(r.stdout, "Revision 2 is live") {
		t.Fatalf("drawbridge apply: %s", tail(r.stdout+r.stderr))
	}
	if got := state(); got != n {
		t.Errorf("the change has %d resources", got)
	}
}

func TestManyBundlesAndUpstreams(t *testing.T) {
	t.Parallel()
	bundles, upstreams := sized(t, 40), sized(t, 1000)
	const roots = "/etc/ssl/certs/ca-certificates.crt"
	content, err := os.ReadFile(roots)
	if err != nil {
		missing(t, "there are no roots of the system at "+roots)
	}
	cas := strings.Count(string(content), "BEGIN CERTIFICATE")
	bundles = min(bundles, 400)
	g := startGateway(t, "--file-root", "/etc/ssl/certs")
	ctx := scaleContext(t)
	req := &adminv1.ApplyRequest{}
	add := func(rs ...proto.Message) { req.Resources = append(req.Resources, wrap(t, rs)...) }
	for i := range bundles {
		add(&adminv1.TrustBundle{Name: fmt.Sprintf("roots-%05d", i), Source: &adminv1.TrustBundle_File{File: roots}})
	}
	for i := range upstreams {
		name := fmt.Sprintf("u-%05d", i)
		u := upstream(name, &adminv1.UpstreamTls{TrustBundles: []string{"roots-00000"}}, "127.0.0.1:9")
		u.Labels = padding(500)
		add(u)
	}
	if _, err := g.admin.Apply(ctx, req, grpc.MaxCallSendMsgSize(128<<20)); err != nil {
		t.Fatal(err)
	}
	shared := 0
	got := listed(t, func(token string) (*adminv1.ListCertificatesInUseResponse, int, string, error) {
		r, err := g.status.ListCertificates(ctx, &adminv1.ListCertificatesInUseRequest{PageToken: token})
		for _, c := range r.GetCertificates() {
			if len(c.GetUsedBy()) > 100 {
				t.Errorf("%d users are listed", len(c.GetUsedBy()))
			}
			if int(c.GetUsedByCount()) == upstreams {
				shared++
			}
		}
		return r, len(r.GetCertificates()), r.GetNextPageToken(), err
	})
	if got < bundles*(cas-20) || got > bundles*cas || shared != got/bundles {
		t.Errorf("ListCertificates has %d entries, %d of them shared by all upstreams", got, shared)
	}
	if got := listed(t, func(token string) (*adminv1.ListUpstreamStatusesResponse, int, string, error) {
		r, err := g.status.ListUpstreams(ctx, &adminv1.ListUpstreamStatusesRequest{PageToken: token})
		return r, len(r.GetUpstreams()), r.GetNextPageToken(), err
	}); got != upstreams {
		t.Errorf("ListUpstreams has %d", got)
	}
	if got := listed(t, func(token string) (*adminv1.ListTrustBundlesResponse, int, string, error) {
		r, err := g.admin.ListTrustBundles(ctx, &adminv1.ListTrustBundlesRequest{PageToken: token})
		return r, len(r.GetTrustBundles()), r.GetNextPageToken(), err
	}); got != bundles {
		t.Errorf("ListTrustBundles has %d", got)
	}
	for _, args := range [][]string{{"status"}, {"get", "upstreams"}, {"get", "trustbundles"}, {"status", "--certificates"}} {
		if r := g.patientCli(args...); r.code != 0 {
			t.Errorf("drawbridge %s: %s", strings.Join(args, " "), tail(r.stderr))
		}
	}
}
