// Failure drills: what clients see when endpoints die, hang or lie. Each prints
// its figures (make drills), and asserts only outcomes and orders, never times.
// Some drills have their own files: a change of DNS under traffic
// (dns_test.go), a storm of retries held by the budget (retry_test.go), and
// what a full queue reports in log and metrics (overload_test.go).

package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A load sends requests from several clients and counts the results.
type load struct {
	mu    sync.Mutex
	began map[string]int         // the number of requests by the phase of their start
	codes map[string]map[int]int // the status codes by phase; 0: no complete response
	by    map[string]int         // number of 200s by server
	times []time.Duration        // the durations of all requests
	phase atomic.Pointer[string] // the current phase; "" at first
	more  func() bool            // whether to send another request
	ask   func() *http.Request   // returns the next request
	note  func(*http.Response)   // called with each complete response; may be nil
	http  http.Transport         // shared by the clients
}

func newLoad(t testing.TB, clients int, ask func() *http.Request, more func() bool) *load {
	l := &load{began: map[string]int{}, codes: map[string]map[int]int{}, by: map[string]int{}, ask: ask, more: more}
	l.http.MaxIdleConnsPerHost = clients
	l.enter("")
	t.Cleanup(l.http.CloseIdleConnections)
	return l
}

// gets makes a load of GET requests.
func gets(t testing.TB, clients int, url string, more func() bool) *load {
	return newLoad(t, clients, func() *http.Request {
		req, _ := http.NewRequest(http.MethodGet, url, nil)
		return req
	}, more)
}

// upTo returns a function that returns true n times.
func upTo(n int64) func() bool {
	var made atomic.Int64
	return func() bool { return made.Add(1) <= n }
}

// enter begins a phase: requests sent from now on count in it.
func (l *load) enter(phase string) { l.phase.Store(&phase) }

// run sends requests until more returns false. It fails the test if a request
// hangs.
func (l *load) run(t testing.TB, clients int) {
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for l.more() && !t.Failed() {
				l.one(t)
			}
		})
	}
	all.Wait()
}

func (l *load) one(t testing.TB) {
	phase, begin := *l.phase.Load(), time.Now()
	code, by := 0, ""
	client := http.Client{Transport: &l.http, Timeout: testTimeout}
	resp, err := client.Do(l.ask())
	if err == nil {
		if _, err = readBody(resp); err == nil {
			code, by = resp.StatusCode, resp.Header.Get("X-Server")
		}
		if l.note != nil {
			l.note(resp)
		}
	}
	took := time.Since(begin)
	if took >= testTimeout {
		t.Errorf("a request hung for %v", took)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.codes[phase] == nil {
		l.codes[phase] = map[int]int{}
	}
	l.began[phase]++
	l.codes[phase][code]++
	l.times = append(l.times, took)
	if code == 200 {
		l.by[by]++
	}
}

// sent returns how many requests of a phase have ended, and how many of them
// failed (no 200).
func (l *load) sent(phase string) (all, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.began[phase], l.began[phase] - l.codes[phase][200]
}

// quantiles describes the durations of requests.
func (l *load) quantiles() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.times)
	at := func(p int) time.Duration {
		return l.times[min(len(l.times)*p/100, len(l.times)-1)].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("median %v, 99th of 100 %v, longest %v", at(50), at(99), at(100))
}

// answers responds with only the server's name.
func answers(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Server", name) }
}

// serveKillable is serveHTTPS for a server that can be killed: kill closes its
// listener and breaks every connection, like the death of a process.
func serveKillable(t testing.TB, config *tls.Config, handler http.HandlerFunc) (address string, kill func()) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.TLS, s.EnableHTTP2 = config, true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.Listener.Addr().String(), func() {
		_ = s.Listener.Close()
		s.CloseClientConnections()
	}
}

func share(part, of int) string {
	return fmt.Sprintf("%d of %d (%.2f %%)", part, of, 100*float64(part)/float64(max(of, 1)))
}

func TestDrillHalfOfAGroupDiesUnderLoad(t *testing.T) {
	const clients = 16
	for _, c := range []struct {
		name   string
		retry  *adminv1.Retry
		budget *adminv1.RetryBudget
		most   int // failures that clients see: at most the requests in flight without a retry
	}{
		{name: "no retry", most: clients},
		{name: "retry", retry: &adminv1.Retry{Attempts: new(int32(4))}, most: clients},
		{name: "retry, budget for all", retry: &adminv1.Retry{Attempts: new(int32(4))}, budget: &adminv1.RetryBudget{MinRetries: proto.Int32(clients)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAuthority(t)
			var addresses []string
			var kills []func()
			for i := range 4 {
				address, kill := serveKillable(t, a.serverConfig(t), slowly(5*time.Millisecond, answers(fmt.Sprint(i))))
				addresses, kills = append(addresses, address), append(kills, kill)
			}
			u := upstream("web", a.settings(), addresses...)
			u.OutlierDetection = &adminv1.OutlierDetection{ConsecutiveFailures: proto.Int32(3), BaseEjection: durationpb.New(time.Hour), MaxEjection: durationpb.New(2 * time.Hour)}
			u.Limits = &adminv1.UpstreamLimits{RetryBudget: c.budget}
			g := startGateway(t, "--log-level", "warn")
			events := g.watchEvents()
			g.apply(trustBundle("ca", a.ca), certificate("client", a.client), u, listener("web", protocolHTTP, ""), retried("all", "web", "/", "web", c.retry))

			var stop atomic.Bool
			l := gets(t, clients, "http://"+g.address("web")+"/", func() bool { return !stop.Load() })
			var running sync.WaitGroup
			running.Go(func() { l.run(t, clients) })
			defer running.Wait()
			defer stop.Store(true)
			sent := func(phase string, least int) {
				t.Helper()
				eventually(t, "requests flow", func() bool { n, _ := l.sent(phase); return n >= least || t.Failed() })
			}
			sent("", 400)

			l.enter("death")
			died := time.Now()
			kills[0]()
			kills[1]()
			var ejected []string
			var after []time.Duration
			for len(ejected) < 2 {
				e := events.await(adminv1.EventType_EVENT_TYPE_ENDPOINT_EJECTED)
				ejected, after = append(ejected, e.GetEndpoint()), append(after, e.GetEventTime().AsTime().Sub(died).Round(100*time.Microsecond))
			}
			l.enter("ejected")
			sent("ejected", 1000)
			stop.Store(true)
			running.Wait()

			before, failedBefore := l.sent("")
			during, failed := l.sent("death")
			rest, failedLater := l.sent("ejected")
			s := g.upstream("web")
			t.Logf("failed: %s sent before the death, %s from then to the ejections, %s later; ejected after %v; %d retries, %d refused by the budget; %s",
				share(failedBefore, before), share(failed, during), share(failedLater, rest), after, s.GetRetries(), s.GetRetriesRefused(), l.quantiles())
			t.Logf("answered: %v; codes %v", l.by, l.codes)
			slices.Sort(ejected)
			if want := slices.Sorted(slices.Values(addresses[:2])); !slices.Equal(ejected, want) {
				t.Errorf("ejected %v, want %v", ejected, want)
			}
			// Requests sent before the death may fail with the server.
			if failedBefore+failed > c.most || failedLater > 0 {
				t.Errorf("%d requests failed, want at most %d, and %d after the ejection", failedBefore+failed, c.most, failedLater)
			}
			for _, e := range s.GetEndpoints() {
				if dead := slices.Contains(ejected, e.GetAddress()); dead == e.GetAvailable() || dead && !strings.HasPrefix(e.GetUnavailableReason(), "ejected until ") {
					t.Errorf("endpoint %s: available %t, %q", e.GetAddress(), e.GetAvailable(), e.GetUnavailableReason())
				}
			}
		})
	}
}

// slowly responds after d, unless the client has gone.
func slowly(d time.Duration, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			h(w, r)
		case <-r.Context().Done():
		}
	}
}

func TestDrillASlowEndpoint(t *testing.T) {
	const clients = 16
	a := newAuthority(t)
	var slow, slower, stuck string
	var fast []string
	for i := range 3 {
		fast = append(fast, serveHTTPS(t, a.serverConfig(t), answers(fmt.Sprint("fast ", i))))
	}
	slow = serveHTTPS(t, a.serverConfig(t), slowly(200*time.Millisecond, answers("slow")))
	// This endpoint is so slow that it has few requests even if the machine is too busy for the
	// others to be fast.
	slower = serveHTTPS(t, a.serverConfig(t), slowly(2*time.Second, answers("slower")))
	stuck = serveHTTPS(t, a.serverConfig(t), slowly(time.Hour, answers("stuck")))
	turns, least, timed := upstream("turns", a.settings(), append(fast, slow)...), upstream("least", a.settings(), append(fast, slower)...), upstream("timed", a.settings(), append(fast, stuck)...)
	least.Balancing = &adminv1.Balancing{Policy: adminv1.BalancingPolicy_BALANCING_POLICY_LEAST_REQUESTS}
	timed.Limits = &adminv1.UpstreamLimits{RetryBudget: &adminv1.RetryBudget{MinRetries: proto.Int32(clients)}}
	g := startGateway(t, "--log-level", "warn")
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), turns, least, timed, listener("web", protocolHTTP, ""),
		forward("turns", "web", "/turns", "turns"), forward("least", "web", "/least", "least"),
		retried("timed", "web", "/timed", "timed", &adminv1.Retry{Attempts: new(int32(10)), PerTryTimeout: durationpb.New(500 * time.Millisecond), Backoff: durationpb.New(time.Millisecond)})) // a stall of the machine may cost some tries
	send := func(name string, requests int) *load {
		l := gets(t, clients, "http://"+g.address("web")+"/"+name, upTo(int64(requests)))
		l.run(t, clients)
		if all, failed := l.sent(""); all != requests || failed > 0 {
			t.Errorf("%s: %d requests, %d failed: %v", name, all, failed, l.codes)
		}
		t.Logf("%s: %v; %s", name, l.by, l.quantiles())
		return l
	}
	inTurns, byLoad := send("turns", 400), send("least", 2000)
	if n := inTurns.by["slow"]; n != 100 {
		t.Errorf("in turns the slow endpoint had %s, want a quarter", share(n, 400))
	}
	if n := byLoad.by["slower"]; n > 200 {
		t.Errorf("by least requests the slower endpoint had %s", share(n, 2000))
	}
	l := send("timed", 400)
	s := g.upstream("timed")
	t.Logf("timed: %d retries, %d refused by the budget", s.GetRetries(), s.GetRetriesRefused())
	if l.by["stuck"] > 0 || s.GetRetries() < 50 {
		t.Errorf("the stuck endpoint answered %d, and %d were tried again", l.by["stuck"], s.GetRetries())
	}
}

func TestDrillAHealthCheckThatPassesWhileHandshakesFail(t *testing.T) {
	const clients = 8
	a, other := newAuthority(t), newAuthority(t)
	var hellos atomic.Int64
	wrong := &tls.Config{Certificates: []tls.Certificate{keyPair(t, other.server)}}
	wrong.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		hellos.Add(1)
		return nil, nil
	}
	bad := serveHTTPS(t, wrong, answers("bad"))
	u := upstream("web", a.settings(), bad, serveHTTPS(t, a.serverConfig(t), answers("one")), serveHTTPS(t, a.serverConfig(t), answers("two")))
	u.HealthCheck = &adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Tcp{Tcp: &adminv1.TcpCheck{}}, Interval: durationpb.New(100 * time.Millisecond), Timeout: durationpb.New(testTimeout)}
	u.OutlierDetection = &adminv1.OutlierDetection{
		ConsecutiveFailures: proto.Int32(0), ConsecutiveHandshakeFailures: proto.Int32(4), BaseEjection: durationpb.New(time.Hour), MaxEjection: durationpb.New(2 * time.Hour),
	}
	g := startGateway(t, "--log-level", "warn")
	events := g.watchEvents()
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), u, listener("web", protocolHTTP, "web"))
	url := "http://" + g.address("web") + "/"

	var stop atomic.Bool
	l := gets(t, clients, url, func() bool { return !stop.Load() })
	var running sync.WaitGroup
	begun := time.Now()
	running.Go(func() { l.run(t, clients) })
	defer running.Wait()
	defer stop.Store(true)
	e := events.await(adminv1.EventType_EVENT_TYPE_ENDPOINT_EJECTED)
	took := e.GetEventTime().AsTime().Sub(begun)
	stop.Store(true)
	running.Wait()
	all, failed := l.sent("")
	before := hellos.Load()
	later := gets(t, clients, url, upTo(1000))
	later.run(t, clients)
	_, failedLater := later.sent("")
	t.Logf("ejected after %v, %d handshakes: %s", took.Round(100*time.Microsecond), before, e.GetMessage())
	t.Logf("failed: %s until then, %s later; handshakes with it later: %d; answered %v", share(failed, all), share(failedLater, 1000), hellos.Load()-before, later.by)
	if e.GetEndpoint() != bad || e.GetReason() != adminv1.Reason_REASON_UNKNOWN_CA {
		t.Errorf("the event: %v", e)
	}
	if failed+failedLater > 0 || hellos.Load() != before {
		t.Errorf("%d and %d requests failed, %d handshakes after the ejection", failed, failedLater, hellos.Load()-before)
	}
	var at *adminv1.EndpointStatus
	eventually(t, "the check is made again", func() bool {
		at = g.upstream("web").GetEndpoints()[0]
		return at.GetCheck().GetChecks() > 2
	})
	if !at.GetCheck().GetHealthy() || at.GetCheck().GetFailures() > 0 || at.GetAvailable() || at.GetEjections() != 1 || !strings.Contains(at.GetUnavailableReason(), "4 failed handshakes in a row") {
		t.Errorf("its status: %v", at)
	}
}
