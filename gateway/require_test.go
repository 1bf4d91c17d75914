package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	probeAny   = adminv1.RequireProbe_REQUIRE_PROBE_ANY
	probeEvery = adminv1.RequireProbe_REQUIRE_PROBE_ALL
)

// wantRefusal checks that a write was refused because of failed probes, and
// returns their results.
func wantRefusal(t *testing.T, err error, fields ...string) []*adminv1.ProbeUpstreamResponse {
	t.Helper()
	wantFaults(t, err, invalid.Unproven, fields...)
	var refusal *invalid.Error
	var answers []*adminv1.ProbeUpstreamResponse
	if errors.As(err, &refusal) {
		for _, d := range refusal.Details {
			answers = append(answers, d.(*adminv1.ProbeUpstreamResponse))
		}
	}
	return answers
}

func TestAWriteCanRequireProbes(t *testing.T) {
	ca := certstest.NewCA(t)
	good := echo(t, ca, ca.Server(t, "up.example"))
	bad := echo(t, ca, ca.Server(t, "other.example"))
	for _, c := range []struct {
		name      string
		endpoints []*adminv1.Endpoint
		required  adminv1.RequireProbe
		refused   []string // fields of the faults
	}{
		{"all must pass, and all do", []*adminv1.Endpoint{{Address: good}}, probeEvery, nil},
		{"all must pass, and one fails", []*adminv1.Endpoint{{Address: good}, {Address: bad}}, probeEvery, []string{"resources[2].endpoints[1]"}},
		{"any must pass, and one does", []*adminv1.Endpoint{{Address: bad}, {Address: good}}, probeAny, nil},
		{"any must pass, and all fail", []*adminv1.Endpoint{{Address: bad}, {Address: "127.0.0.1:1"}}, probeAny, []string{"resources[2].endpoints[0]", "resources[2].endpoints[1]"}},
		{"all must pass, and a draining endpoint fails", []*adminv1.Endpoint{{Address: good}, {Address: bad, Draining: true}}, probeEvery, nil},
		{"all must pass, and a backup fails", []*adminv1.Endpoint{{Address: good}, {Address: bad, Backup: true}}, probeEvery, []string{"resources[2].endpoints[1]"}},
		{"any must pass, and all are draining", []*adminv1.Endpoint{{Address: good, Draining: true}}, probeAny, []string{"resources[2].endpoints"}},
		{"no probe is required", []*adminv1.Endpoint{{Address: bad}}, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, "")
			resources := bridgeTo(t, ca, "")
			resources[2].(*adminv1.Upstream).Endpoints = c.endpoints
			edit := store.Edit{Puts: puts(resources...), RequireProbe: c.required}
			for _, dryRun := range []bool{true, false} {
				edit.DryRun = dryRun
				_, err := g.Apply(t.Context(), edit)
				if c.refused == nil {
					if err != nil {
						t.Fatalf("dry run %v: %v", dryRun, err)
					}
					continue
				}
				answers := wantRefusal(t, err, c.refused...)
				if len(answers) != 1 {
					t.Fatalf("%d probe responses", len(answers))
				}
				if c.name != "any must pass, and all are draining" && len(answers[0].GetResults()) != len(c.endpoints) {
					t.Errorf("probe responses %v", answers)
				}
			}
			if got := g.State().Get(adminv1.Kind_KIND_UPSTREAM, "up") != nil; got != (c.refused == nil) {
				t.Errorf("the resource exists: %v", got)
			}
		})
	}
}

// A change of a resource that an upstream uses counts as a change of the
// upstream. An unchanged upstream is not probed.
func TestOnlyChangedUpstreamsAreProbed(t *testing.T) {
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	var dialed atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(net.Conn) { dialed.Add(1) })
	g := start(t, "")
	resources := bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example")))
	g.put(append(resources, &adminv1.Upstream{Name: "untouched", Endpoints: []*adminv1.Endpoint{{Address: l.Addr().String()}}})...)

	// The request does not contain the upstream, but the bundle that the upstream
	// trusts.
	swap := &adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_Pem{Pem: string(other.TrustPEM())}}
	_, err = g.Apply(t.Context(), store.Edit{Puts: puts(swap), RequireProbe: probeAny})
	answers := wantRefusal(t, err, `upstream["up"].endpoints[0]`)
	if len(answers) != 1 || answers[0].GetResults()[0].GetReason() != adminv1.Reason_REASON_UNKNOWN_CA {
		t.Errorf("probe responses %v", answers)
	}
	// A client certificate that the upstream rejects fails the write too.
	stranger := other.Client(t, "stranger")
	for range 5 { // a probe waits only a moment for the alert, which may come later on a busy machine
		if _, err = g.Apply(t.Context(), store.Edit{RequireProbe: probeEvery, Puts: puts(inlineCertificate("client", stranger)), DryRun: true}); err != nil {
			break
		}
	}
	answers = wantRefusal(t, err, `upstream["up"].endpoints[0]`)
	if len(answers) != 1 || answers[0].GetResults()[0].GetReason() != adminv1.Reason_REASON_CLIENT_CERTIFICATE_REJECTED {
		t.Errorf("probe responses %v", answers)
	}
	// Labels and listeners change no upstream.
	up := resources[2].(*adminv1.Upstream)
	up.Labels = map[string]string{"a": "b"}
	if _, err := g.Apply(t.Context(), store.Edit{Puts: puts(up, tcpListener("tcp", "127.0.0.1:0")), RequireProbe: probeEvery}); err != nil {
		t.Error(err)
	}
	if _, err := g.Apply(t.Context(), store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "untouched"}}, RequireProbe: probeEvery}); err != nil {
		t.Error(err)
	}
	if dialed.Load() != 0 {
		t.Error("an unchanged upstream was dialed")
	}
	_, err = g.Apply(t.Context(), store.Edit{RequireProbe: 9})
	wantFaults(t, err, invalid.Argument, "options.require_probe")
}

// If the server name comes from the request, the probe uses the host of a
// route.
func TestProbeUsesTheHostOfARoute(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	resources := bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example")))
	settings := resources[2].(*adminv1.Upstream).GetTls()
	settings.VerifyName, settings.ServerNameSource = "", adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST
	_, err := g.Apply(t.Context(), store.Edit{Puts: puts(resources...), RequireProbe: probeEvery})
	if a := wantRefusal(t, err, "resources[2].endpoints[0]"); len(a) != 1 || a[0].GetResults()[0].GetReason() != adminv1.Reason_REASON_NAME_MISMATCH {
		t.Errorf("probe responses %v", a)
	}
	web := httpListener("web", "127.0.0.1:0")
	web.Upstream = ""
	g.apply(store.Edit{RequireProbe: probeEvery, Puts: puts(append(resources, web, &adminv1.Route{
		Name: "up", Listeners: []string{"web"}, Match: &adminv1.RouteMatch{Hosts: []string{"*.example", "up.example"}},
		Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{Upstreams: []*adminv1.WeightedUpstream{{Name: "up", Weight: new(int32(1))}}}},
	})...)})
}

// While one write waits for its endpoints, another is applied.
func TestWritesDoNotWaitForEndpoints(t *testing.T) {
	ca := certstest.NewCA(t)
	arrived := make(chan struct{}, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(c net.Conn) {
		arrived <- struct{}{}
		io.Copy(io.Discard, c) // sends nothing
	})
	g := start(t, "")
	g.put(&adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_Pem{Pem: string(ca.TrustPEM())}})
	slow := &adminv1.Upstream{Name: "slow", Endpoints: []*adminv1.Endpoint{{Address: l.Addr().String()}},
		Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{TrustBundles: []string{"corp"}}}}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := g.Apply(ctx, store.Edit{Puts: puts(slow), RequireProbe: probeEvery})
		failed <- err
	}()
	<-arrived
	g.put(plainUpstream("quick", "127.0.0.1:1")) // this write does not wait
	cancel()
	wantFaults(t, <-failed, invalid.Unavailable, "")
	if g.State().Get(adminv1.Kind_KIND_UPSTREAM, "slow") != nil {
		t.Error("the write was applied")
	}
}

func TestAWriteIsPlannedAgainAfterAConcurrentWrite(t *testing.T) {
	ca := certstest.NewCA(t)
	issued := ca.Server(t, "up.example")
	gate := newGate(t, echo(t, ca, issued))
	g := start(t, "")
	resources := bridgeTo(t, ca, gate.address)
	g.put(resources[:2]...)

	// After one interruption, the second plan is carried out on top of the other
	// edit.
	done := make(chan error, 1)
	edit := store.Edit{Puts: puts(resources[2]), RequireProbe: probeEvery}
	apply := func() {
		_, err := g.Apply(t.Context(), edit)
		done <- err
	}
	go apply()
	<-gate.arrived
	g.put(plainUpstream("between", "127.0.0.1:1"))
	gate.open <- struct{}{}
	<-gate.arrived // planned and probed again
	gate.open <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"up", "between"} {
		if g.State().Get(adminv1.Kind_KIND_UPSTREAM, name) == nil {
			t.Errorf("%s is missing", name)
		}
	}

	// After too many interruptions, the write fails and changes nothing.
	resources[2].(*adminv1.Upstream).GetTls().ServerName = "up.example"
	go apply()
	for i := range maxPlans {
		<-gate.arrived
		g.put(plainUpstream(fmt.Sprintf("between-%d", i), "127.0.0.1:1"))
		gate.open <- struct{}{}
	}
	err := <-done
	wantFaults(t, err, invalid.Conflict, "options.require_probe")
	if g.State().Get(adminv1.Kind_KIND_UPSTREAM, "up").(*adminv1.Upstream).GetTls().GetServerName() != "" {
		t.Error("the write was applied")
	}

	// The write detects an etag or a reference that went stale while it waited.
	edit.Puts[0].Resource.(*adminv1.Upstream).GetTls().VerifyDepth = new(int32)
	go apply()
	<-gate.arrived
	g.apply(store.Edit{Puts: puts(&adminv1.Certificate{Name: "unused", Source: resources[1].(*adminv1.Certificate).Source}),
		Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "up"}}})
	g.apply(store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: "corp"}}})
	gate.open <- struct{}{}
	err = <-done
	var faults *invalid.Error
	if !errors.As(err, &faults) || !slices.ContainsFunc(faults.Faults, func(f invalid.Fault) bool {
		return strings.HasSuffix(string(f.Field), "tls.trust_bundles[0]")
	}) {
		t.Errorf("error %v", err)
	}
}

// A gate lets connections through to an address one by one.
type gate struct {
	address       string
	arrived, open chan struct{}
}

func newGate(t *testing.T, to string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{address: l.Addr().String(), arrived: make(chan struct{}), open: make(chan struct{})}
	serve(t, l, func(c net.Conn) {
		g.arrived <- struct{}{}
		<-g.open
		back, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(back, c); back.(*net.TCPConn).CloseWrite() })
		io.Copy(c, back)
		c.(*net.TCPConn).CloseWrite()
		wg.Wait()
		back.Close()
	})
	return g
}

// Many concurrent writers each require a probe: every write that reports success is
// applied.
func TestConcurrentWritersThatRequireProbes(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	resources := bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example")))
	g.put(resources[:2]...)
	var wg sync.WaitGroup
	var applied atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			u := &adminv1.Upstream{Name: fmt.Sprintf("up-%d", i), Endpoints: resources[2].(*adminv1.Upstream).Endpoints, Transport: resources[2].(*adminv1.Upstream).Transport}
			_, err := g.Apply(context.Background(), store.Edit{Puts: puts(u), RequireProbe: probeEvery})
			var faults *invalid.Error
			switch there := g.State().Get(adminv1.Kind_KIND_UPSTREAM, u.Name) != nil; {
			case err == nil:
				applied.Add(1)
				if !there {
					t.Errorf("%s was applied and is missing", u.Name)
				}
			case errors.As(err, &faults) && faults.Worst() == invalid.Conflict:
				if there {
					t.Errorf("%s was refused but exists", u.Name)
				}
			default:
				t.Errorf("%s: %v", u.Name, err)
			}
		})
	}
	wg.Wait()
	if n := g.State().Len(adminv1.Kind_KIND_UPSTREAM); n != int(applied.Load()) || n == 0 {
		t.Errorf("%d exist, %d were applied", n, applied.Load())
	}
}
