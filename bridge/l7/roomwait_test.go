package l7

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// uploading returns how many goroutines send requests' bodies for w's gateways.
func (w *testbed) uploading() (n int) {
	var b strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1) // a write to memory cannot fail
	for record := range strings.SplitSeq(b.String(), "\n\n") {
		if strings.Contains(record, "exchange.(*upload)") && strings.Contains(record, strconv.Quote(w.label())) {
			n++
		}
	}
	return n
}

// A patientUpstream reads the head of each request, and the body only once read is
// closed. It responds with a checksum of the body.
type patientUpstream struct {
	arrived chan struct{}
	read    chan struct{}
}

func newPatientUpstream() *patientUpstream {
	return &patientUpstream{make(chan struct{}, 100), make(chan struct{})}
}

func (u *patientUpstream) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	u.arrived <- struct{}{}
	<-u.read
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	fmt.Fprintf(rw, "%d %x %v %v", n, sum.Sum(nil), err, r.Trailer)
}

// An HTTP/2 client's upload waits without a goroutine while its HTTP/1.1 upstream does not
// read, and then arrives whole.
func TestABlockedUploadToHTTP1HasNoGoroutine(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	body := make([]byte, 4<<20) // more than the kernel's buffers of a connection hold
	for i := range body {
		body[i] = byte(i * i >> 8)
	}
	for _, secure := range []bool{false, true} {
		for _, sized := range []bool{false, true} {
			for _, retry := range []*exchange.Retry{nil, {Codes: []int{503}}} {
				t.Run(fmt.Sprintf("tls=%v,sized=%v,retry=%v", secure, sized, retry != nil), func(t *testing.T) {
					w, u := newTestbed(t), newPatientUpstream()
					var pools *backs.Pools
					if secure {
						pools = w.back(backs.HTTP1, w.server(u, "http/1.1"))
					} else {
						pools = w.newBack(backs.Options{Upstream: plaintext(w.clearServer(u)), Protocol: backs.HTTP1})
					}
					action := to(pools)
					action.Forward.Retry = retry
					_, address := w.gateway(fixed(&Table{Default: action, TLS: w.listenerTLS("h2")}))
					client, answers := w.browser(), make(chan string, 2)
					var bodies []*meteredBody
					for range cap(answers) {
						metered := &meteredBody{r: bytes.NewReader(body)}
						bodies = append(bodies, metered)
						request, err := http.NewRequest("POST", "https://"+address, metered) // the length is unknown
						if err != nil {
							t.Fatal(err)
						}
						if sized {
							request.ContentLength = int64(len(body))
						} else {
							request.Trailer = http.Header{"X-End": {"yes"}}
						}
						go func() { answers <- answer(client.Do(request)) }()
					}
					for range cap(answers) {
						<-u.arrived
					}
					eventually(t, "no goroutine sends a body", func() bool {
						for _, b := range bodies {
							if !b.stopped() {
								return false
							}
						}
						return w.uploading() == 0
					})
					close(u.read)
					end := "map[]"
					if !sized {
						end = "map[X-End:[yes]]"
					}
					for range cap(answers) {
						if got, want := <-answers, fmt.Sprintf("%d %x <nil> %s", len(body), sha256.Sum256(body), end); got != want {
							t.Errorf("got %q, want %q", got, want)
						}
					}
				})
			}
		}
	}
}

// clearServer starts a plaintext HTTP/1.1 upstream.
func (w *testbed) clearServer(h http.Handler) (address string) {
	srv := httptest.NewServer(h)
	w.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func answer(res *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// A blocked upload ends with its client, with its upstream, and when the upstream has read
// nothing for too long.
func TestABlockedUploadToHTTP1Ends(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	for _, secure := range []bool{false, true} {
		for name, c := range map[string]struct {
			end  func(leave func(), upstream net.Conn)
			idle time.Duration // the upstream's idle timeout
			want string
		}{
			"when the client leaves":      {end: func(leave func(), _ net.Conn) { leave() }, want: context.Canceled.Error()},
			"when the upstream resets it": {end: func(_ func(), u net.Conn) { socket.New(u, nil).Reset() }, want: "502"},
			"when the upstream is stuck":  {end: func(func(), net.Conn) {}, idle: time.Second, want: "504"},
		} {
			t.Run(fmt.Sprintf("%s,tls=%v", name, secure), func(t *testing.T) {
				w, upstreams, over := newTestbed(t), make(chan net.Conn, 1), make(chan struct{})
				o := upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, IdleTimeout: c.idle}
				address := w.raw(nil, func(raw net.Conn) {
					u := raw
					if secure {
						u = tls.Server(raw, w.serverTLS("http/1.1"))
					}
					_, _ = u.Read(make([]byte, 10)) // also completes the handshake
					upstreams <- raw
					<-over
				})
				t.Cleanup(func() { close(over) })
				o.Endpoints = []upstream.EndpointOptions{{Network: "tcp", Address: address}}
				if secure {
					o.Endpoints[0].HTTP = w.client("http/1.1")
				}
				s, address := w.gateway(fixed(&Table{
					Default: to(w.newBack(backs.Options{Upstream: upstream.New(o), Protocol: backs.HTTP1, TLS: secure})), TLS: w.listenerTLS("h2"),
				}))
				ctx, leave := context.WithCancel(context.Background())
				defer leave()
				body := &meteredBody{r: zeros{}}
				request, err := http.NewRequestWithContext(ctx, "POST", "https://"+address, body)
				if err != nil {
					t.Fatal(err)
				}
				answers := make(chan string, 1)
				client := w.browser()
				go func() {
					res, err := client.Do(request)
					if err == nil {
						res.Body.Close()
						answers <- strconv.Itoa(res.StatusCode)
						return
					}
					answers <- errors.Unwrap(err).Error()
				}()
				u := <-upstreams
				eventually(t, "the upload is blocked", func() bool { return body.stopped() && w.uploading() == 0 })
				c.end(leave, u)
				if got := <-answers; got != c.want {
					t.Errorf("the client got %q, want %q", got, c.want)
				}
				eventually(t, "the request ends", func() bool { return s.Stats().InFlight == 0 })
			})
		}
	}
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// A meteredBody reports when its reader has stopped.
type meteredBody struct {
	r    io.Reader
	n    atomic.Int64
	seen int64
	when time.Time
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// stopped reports whether the body has been read in part, but not in the last 50 ms.
func (b *meteredBody) stopped() bool {
	if n := b.n.Load(); n != b.seen {
		b.seen, b.when = n, time.Now()
	}
	return b.seen > 0 && time.Since(b.when) > 50*time.Millisecond
}
