package gateway

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A rolloutFleet is three gateways with an HTTP listener each. gateway-a is the canary.
type rolloutFleet struct {
	t       *testing.T
	cluster *etcdtest.Cluster
	a, b, c *testGateway

	good, alias string // addresses of an upstream that answers 200
	bad         string // address of an upstream that answers 503
}

func startRolloutFleet(t *testing.T) *rolloutFleet { return startSkewedFleet(t, 0) }

// startSkewedFleet starts a rolloutFleet in which the clock of gateway-a is slow, and that of
// gateway-c is fast.
func startSkewedFleet(t *testing.T, skew time.Duration) *rolloutFleet {
	c := etcdtest.Start(t, 1)
	zone := func(name string, skew time.Duration) *testGateway {
		return start(t, "", zoned(t, c, name), func(o *Options) { o.now = func() time.Time { return time.Now().Add(skew) } })
	}
	f := &rolloutFleet{t: t, cluster: c, a: zone("a", -skew), b: zone("b", 0), c: zone("c", skew)}
	answering := func(code int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	f.good, f.bad = answering(http.StatusOK), answering(http.StatusServiceUnavailable)
	f.alias = "localhost" + f.good[strings.LastIndexByte(f.good, ':'):]
	eventually(t, "the gateways are listed", func() bool {
		all, _, err := f.b.fleet.Gateways(t.Context())
		return err == nil && len(all) == 3 && !slices.ContainsFunc(all, func(g *adminv1.Gateway) bool { return !g.GetConnected() })
	})
	f.b.put(plainUpstream("up", f.good), httpListener("in", "127.0.0.1:0"))
	converge(t, 1, f.all()...)
	return f
}

func (f *rolloutFleet) all() []*testGateway { return []*testGateway{f.a, f.b, f.c} }

// roll changes the upstream at a gateway as a rollout, and returns its answer.
func (f *rolloutFleet) roll(at *testGateway, address string, hold time.Duration) <-chan rolloutAnswer {
	conn, err := grpc.NewClient(at.AdminAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	f.t.Cleanup(cancel)
	done := make(chan rolloutAnswer, 1)
	go func() {
		answer, err := adminv1.NewAdminServiceClient(conn).PutUpstream(ctx, &adminv1.PutUpstreamRequest{
			Upstream: plainUpstream("up", address),
			Options: &adminv1.WriteOptions{Comment: "new address", Rollout: &adminv1.Rollout{
				Canaries: &adminv1.Canaries{Gateways: &adminv1.Canaries_Selector{Selector: "zone=a"}}, Hold: durationpb.New(hold),
			}},
		})
		done <- rolloutAnswer{answer.GetChange(), err}
	}()
	return done
}

type rolloutAnswer struct {
	change *adminv1.Change
	err    error
}

// inProgress waits until every gateway knows of the rollout of a revision, and the canary
// runs it.
func (f *rolloutFleet) inProgress(revision int64) {
	f.t.Helper()
	for _, g := range f.all() {
		eventually(f.t, "the gateway knows of the rollout", func() bool { return g.Status().GetPending().GetRollout().GetRevision() == revision })
	}
	eventually(f.t, "the canary runs the revision", func() bool { return f.a.State().Revision() == revision })
	for _, g := range []*testGateway{f.b, f.c} {
		if n := g.State().Revision(); n != revision-1 {
			f.t.Errorf("a gateway that is not a canary runs revision %d", n)
		}
	}
}

// rolloutEvents waits for an event about the end of a rollout at each gateway.
func (f *rolloutFleet) rolloutEvents(want adminv1.EventType, revision int64) {
	f.t.Helper()
	for _, g := range f.all() {
		eventually(f.t, "the gateway publishes the end", func() bool {
			before, _ := g.EventBounds()
			events, _, err := g.Events(before)
			return err == nil && slices.ContainsFunc(events, func(e *adminv1.Event) bool {
				return e.GetType() == want && e.GetRevision() == revision && e.GetMessage() != ""
			})
		})
	}
}

func TestARolloutIsPromotedAfterItsHold(t *testing.T) {
	t.Parallel()
	f := startRolloutFleet(t)
	for _, writer := range f.all()[:2] { // a canary, and another gateway
		revision := writer.State().Revision() + 1
		answer := <-f.roll(writer, f.alias, 2*time.Second)
		if answer.err != nil {
			t.Fatal(answer.err)
		}
		r := answer.change.GetRollout()
		if r.GetState() != adminv1.RolloutState_ROLLOUT_STATE_PROMOTED || r.GetRevision() != revision || r.GetEndedBy() == "" || r.GetMessage() == "" || answer.change.GetPending() != nil {
			t.Errorf("answer: %v", answer.change)
		}
		converge(t, revision, f.all()...)
		f.rolloutEvents(adminv1.EventType_EVENT_TYPE_ROLLOUT_PROMOTED, revision)
		for _, g := range f.all() {
			stored, err := g.History().Revision(revision)
			if err != nil || stored.GetRollout().GetState() != adminv1.RolloutState_ROLLOUT_STATE_PROMOTED || stored.GetConfirmTime() == nil || stored.GetComment() != "new address" {
				t.Errorf("%v, %v", stored, err)
			}
			if p := g.Status().GetPending(); p != nil {
				t.Errorf("pending: %v", p)
			}
		}
		f.b.put(plainUpstream("up", f.good))
		converge(t, revision+1, f.all()...)
	}
}

func TestARolloutThatFailsIsRolledBack(t *testing.T) {
	t.Parallel()
	f := startRolloutFleet(t)
	answered := f.roll(f.b, f.bad, ages)
	f.inProgress(2)
	var answer rolloutAnswer
	for done := false; !done; {
		select {
		case answer = <-answered:
			done = true
		default:
			get(t, "http://"+f.a.address("in"))
			if code, _ := get(t, "http://"+f.c.address("in")); code != http.StatusOK {
				t.Fatalf("a gateway that is not a canary answers %d", code)
			}
		}
	}
	st := status.Convert(answer.err)
	if st.Code() != codes.FailedPrecondition || !strings.Contains(st.Message(), "requests of the canaries fail too often") || !strings.Contains(st.Message(), "503") {
		t.Fatalf("answer: %v", answer.err)
	}
	var end *adminv1.RolloutStatus
	for _, d := range st.Details() {
		if r, ok := d.(*adminv1.RolloutStatus); ok {
			end = r
		}
	}
	if end.GetState() != adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK || end.GetCanaryTraffic().GetRequestsFailed() < 5 || end.GetOtherTraffic().GetRequestsFailed() != 0 {
		t.Errorf("evidence: %v", end)
	}
	converge(t, 3, f.all()...)
	if code, _ := get(t, "http://"+f.a.address("in")); code != http.StatusOK {
		t.Errorf("the canary answers %d after the rollback", code)
	}
	f.rolloutEvents(adminv1.EventType_EVENT_TYPE_ROLLOUT_ROLLED_BACK, 2)
	for _, g := range f.all() {
		r, err := g.History().Revision(3)
		if err != nil || r.GetMethod() != "rollout" || r.GetRollbackTo() != 1 || !strings.Contains(r.GetComment(), "503") {
			t.Errorf("%v, %v", r, err)
		}
	}
	f.b.put(plainUpstream("other", f.good))
	converge(t, 4, f.all()...)
}

func TestARolloutEndsWhenACallerSaysSo(t *testing.T) {
	t.Parallel()
	f := startRolloutFleet(t)
	answered := f.roll(f.b, f.alias, ages)
	f.inProgress(2)
	for _, g := range f.all() {
		if _, err := g.Apply(t.Context(), store.Edit{Puts: puts(plainUpstream("other", f.good))}); !isPending(err) || !strings.Contains(err.Error(), "rolled out") {
			t.Errorf("another write: %v", err)
		}
	}
	// A gateway that joins holds the previous revision too, and so does one that restarts.
	if err := f.c.stop(); err != nil {
		t.Fatal(err)
	}
	f.c = start(t, f.c.dir, zoned(t, f.cluster, "c"))
	late := start(t, "", zoned(t, f.cluster, "late"))
	for _, g := range []*testGateway{f.c, late} {
		eventually(t, "it knows of the rollout", func() bool { return g.Status().GetPending().GetRollout().GetRevision() == 2 })
		if g.State().Revision() != 1 {
			t.Errorf("it runs revision %d", g.State().Revision())
		}
	}
	// A caller confirms the rollout at a gateway that does not run its revision.
	if err := f.c.tryConfirm(2); err != nil {
		t.Fatal(err)
	}
	if answer := <-answered; answer.err != nil || !strings.Contains(answer.change.GetRollout().GetMessage(), "uid:9") {
		t.Errorf("answer: %v", answer)
	}
	converge(t, 2, append(f.all(), late)...)
	// A caller rolls a rollout back at such a gateway, and at the canary.
	for i, at := range []*testGateway{f.c, f.a} {
		revision := 3 + 2*int64(i)
		answered = f.roll(f.b, f.bad, ages)
		f.inProgress(revision)
		at.rollBack(revision - 1)
		if answer := <-answered; status.Code(answer.err) != codes.FailedPrecondition {
			t.Errorf("answer: %v", answer)
		}
		converge(t, revision+1, append(f.all(), late)...)
		if code, _ := get(t, "http://"+f.a.address("in")); code != http.StatusOK {
			t.Errorf("the canary answers %d after the rollback", code)
		}
	}
}
