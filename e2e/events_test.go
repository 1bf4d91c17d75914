// WatchEvents reports an upstream that fails (once, with a count of the
// failures) and its recovery, revisions, certificates that expire soon, and
// reloaded files.

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// An eventStream is a client of WatchEvents.
type eventStream struct {
	t      testing.TB
	stream grpc.ServerStreamingClient[adminv1.Event]
	all    []*adminv1.Event
}

// watchEvents returns a stream of all events from now on.
func (g *gateway) watchEvents() *eventStream {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 2*testTimeout)
	g.t.Cleanup(cancel)
	stream, err := g.status.WatchEvents(ctx, &adminv1.WatchEventsRequest{})
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil { // sent once the watch has begun
		g.t.Fatal(err)
	}
	return &eventStream{t: g.t, stream: stream}
}

// await returns the next event of a type.
func (s *eventStream) await(kind adminv1.EventType) *adminv1.Event {
	s.t.Helper()
	for {
		e, err := s.stream.Recv()
		if err != nil {
			s.t.Fatalf("waiting for %v: %v; seen so far: %v", kind, err, s.all)
		}
		s.all = append(s.all, e)
		if e.GetEventTime() == nil {
			s.t.Errorf("an event without a time: %v", e)
		}
		if e.GetType() == kind {
			return e
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	raw := serveConns(t, a.serverConfig(t), echo)
	g := startGateway(t)
	events := g.watchEvents()
	_, err := g.admin.Apply(longContext(t), &adminv1.ApplyRequest{
		Resources: wrap(t, []proto.Message{
			trustBundle("ca", other.ca), certificate("client", a.client), upstream("raw", a.settings(), raw), listener("raw", protocolTCP, "raw"),
		}),
		Options: &adminv1.WriteOptions{Comment: "ticket 4711"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if e := events.await(adminv1.EventType_EVENT_TYPE_APPLIED); e.GetRevision() != g.getStatus().GetRevision() || !strings.Contains(e.GetMessage(), "ticket 4711") {
		t.Errorf("the revision is reported as %v", e)
	}

	// Many failures with the same cause are one event with a count.
	const tries = 40
	began := time.Now()
	for range tries {
		if answer, _ := exchange(t, g.address("raw"), "hello"); answer != "" {
			t.Fatalf("the client got %q", answer)
		}
	}
	expectReason(t, g, "raw", adminv1.Reason_REASON_UNKNOWN_CA)
	failed := events.await(adminv1.EventType_EVENT_TYPE_HANDSHAKE_FAILURE)
	if failed.GetKind() != adminv1.Kind_KIND_UPSTREAM || failed.GetName() != "raw" || failed.GetEndpoint() != raw ||
		failed.GetReason() != adminv1.Reason_REASON_UNKNOWN_CA || failed.GetMessage() == "" || failed.GetCount() == 0 {
		t.Errorf("the failure is reported as %v", failed)
	}
	periods := 1 + int(time.Since(began)/(10*time.Second)) // failures are reported once in each period
	g.apply(trustBundle("ca", a.ca))
	if answer, err := exchange(t, g.address("raw"), "hello"); answer != "hello" || err != nil {
		t.Fatalf("%q, %v", answer, err)
	}
	for e := failed; e.GetHealth() != adminv1.EndpointHealth_ENDPOINT_HEALTH_UP; {
		e = events.await(adminv1.EventType_EVENT_TYPE_ENDPOINT_HEALTH)
		if e.GetName() != "raw" || e.GetEndpoint() != raw {
			t.Errorf("the endpoint's health is reported as %v", e)
		}
	}
	count := func(kind adminv1.EventType) (n int) {
		for _, e := range events.all {
			if e.GetType() == kind {
				n++
			}
		}
		return n
	}
	if n := count(adminv1.EventType_EVENT_TYPE_HANDSHAKE_FAILURE); n == 0 || n > 1+periods {
		t.Errorf("%d failures in %d periods were reported in %d events", tries, periods, n)
	}
	if n := count(adminv1.EventType_EVENT_TYPE_ENDPOINT_HEALTH); n < 2 || n > 3 {
		t.Errorf("down and up were reported in %d events: %v", n, events.all)
	}
}

// A certificate near or past its end is reported once for each step, and the
// list sorts by days left.
func TestExpiryIsReported(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	soon := func(usage pki.Usage, name string, in time.Duration) *pki.Issued {
		return issue(t, a.ca, pki.LeafOptions{CommonName: name, DNSNames: []string{serverName}, Usage: usage, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(in)})
	}
	config := a.serverConfig(t)
	config.Certificates[0] = keyPair(t, soon(pki.Server, "upstream soon", 6*24*time.Hour+time.Hour))
	raw := serveConns(t, config, echo)

	g, ops := startGatewayWithOps(t)
	events := g.watchEvents()
	g.apply(
		certificate("client", soon(pki.Client, "client soon", 20*24*time.Hour+time.Hour)),
		certificate("past", soon(pki.Client, "client past", -time.Hour)),
		certificate("fresh", a.client),
		withCRLs(trustBundle("ca", a.ca), crlWith(t, a.ca, pki.CRLOptions{NextUpdate: time.Now().Add(12 * time.Hour)})),
		upstream("raw", a.settings(), raw), listener("raw", protocolTCP, "raw"),
	)
	if answer, err := exchange(t, g.address("raw"), "hello"); answer != "hello" || err != nil {
		t.Fatalf("%q, %v", answer, err)
	}
	reported := map[string]int{}
	expiring := []string{"KIND_CERTIFICATE client", "KIND_CERTIFICATE past", "KIND_TRUST_BUNDLE ca"}
	for slices.ContainsFunc(expiring, func(name string) bool { return reported[name] == 0 }) {
		e := events.await(adminv1.EventType_EVENT_TYPE_EXPIRY)
		if e.GetMessage() == "" {
			t.Errorf("an event without a message: %v", e)
		}
		reported[fmt.Sprintf("%v %s", e.GetKind(), e.GetName())]++
	}
	if slices.ContainsFunc(expiring, func(name string) bool { return reported[name] != 1 }) {
		t.Errorf("reported %v", reported)
	}

	list, err := g.status.ListCertificates(longContext(t), &adminv1.ListCertificatesInUseRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range list.GetCertificates() {
		got = append(got, fmt.Sprintf("%s %s %d", strings.TrimPrefix(c.GetUse().String(), "CERTIFICATE_USE_"), c.GetName(), c.GetDaysLeft()))
	}
	want := []string{"OWN past -1", "CRL ca 0", "UPSTREAM raw 6", "OWN client 20", "OWN fresh 364", "TRUST ca 3649"}
	if !slices.Equal(got, want) {
		t.Errorf("the certificates in use are %q, want %q", got, want)
	}
	for _, c := range list.GetCertificates() {
		if c.GetName() == "raw" && c.GetEndpoint() != raw {
			t.Errorf("the upstream's certificate is of %q", c.GetEndpoint())
		}
		if c.GetName() == "client" && !slices.ContainsFunc(c.GetUsedBy(), func(r *adminv1.ResourceRef) bool {
			return r.GetKind() == adminv1.Kind_KIND_UPSTREAM && r.GetName() == "raw"
		}) {
			t.Errorf("the client's certificate is used by %q", c.GetUsedBy())
		}
	}
	_, metrics := get(t, "http://"+ops+"/metrics")
	for _, use := range []string{"own", "trust", "upstream", "crl"} {
		if !strings.Contains(metrics, `use="`+use+`"`) {
			t.Errorf("no metric of seconds left has use=%q", use)
		}
	}
	r := g.cli("get", "certificates", "-o", "json")
	if r.code != 0 || !json.Valid([]byte(r.stdout)) || !strings.Contains(r.stdout, "past") {
		t.Errorf("drawbridge get certificates: %s", r)
	}
}

// A slow watcher is disconnected, and holds up no other watcher.
func TestASlowWatcherIsDisconnected(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	slow, quick := g.watchEvents(), g.watchEvents()
	// Socket buffers hold some hundred kilobytes, and the gateway keeps 1024 events.
	comment := strings.Repeat("x", 1000)
	var revision int64
	for i := range 1500 {
		resp, err := g.admin.PutUpstream(longContext(t), &adminv1.PutUpstreamRequest{
			Upstream: plainUpstream("up", fmt.Sprintf("127.0.0.1:%d", i+1)), Options: &adminv1.WriteOptions{Comment: comment},
		})
		if err != nil {
			t.Fatal(err)
		}
		revision = resp.GetChange().GetRevision()
		if e := quick.await(adminv1.EventType_EVENT_TYPE_APPLIED); e.GetRevision() != revision {
			t.Fatalf("revision %d is reported as %v", revision, e)
		}
	}
	for {
		if _, err := slow.stream.Recv(); err != nil {
			if status.Code(err) != codes.ResourceExhausted {
				t.Errorf("the slow watcher got %v", err)
			}
			return
		}
	}
}

func TestWatchCommand(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	raw := serveConns(t, a.serverConfig(t), echo)
	g := startGateway(t)
	table := start(t, program(t), "watch", "--admin", "unix:"+g.socket)
	lines := start(t, program(t), "watch", "-o", "json", "--admin", "unix:"+g.socket)
	eventually(t, "drawbridge watch shows the present revision", func() bool { return lines.out.contains("\n") && table.out.contains("\n") })
	g.apply(trustBundle("ca", other.ca), certificate("client", a.client), upstream("raw", a.settings(), raw), listener("raw", protocolTCP, "raw"))
	// The watch may begin only after the first event.
	eventually(t, "drawbridge watch shows a failure", func() bool {
		g.apply(upstream("raw", a.settings(), raw))
		g.apply(withCRLs(trustBundle("ca", other.ca), crl(t, other.ca)))
		_, _ = exchange(t, g.address("raw"), "hello")
		return lines.out.contains("UNKNOWN_CA") && table.out.contains("UNKNOWN_CA")
	})
	if out := table.out.String(); strings.Contains(out, "\x1b") || !strings.Contains(out, raw) {
		t.Errorf("the table output is:\n%s", out)
	}
	for line := range strings.Lines(lines.out.String()) {
		if !strings.HasSuffix(line, "\n") {
			continue // the line is still incomplete
		}
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	for _, p := range []*process{table, lines} {
		p.signal(syscall.SIGINT)
		if code := p.wait(); code != 0 {
			t.Errorf("exit code %d after an interrupt:\n%s", code, p.out)
		}
	}
}
