package l7

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A refusingUpstream is an HTTP/2 upstream that reports the first requests as not
// processed, each after a given part of its body has arrived. It answers the others
// with the length and the checksum of their bodies.
type refusingUpstream struct {
	mu       sync.Mutex
	fails    int
	after    int           // bytes of the body that arrive before the refusal
	arrived  chan struct{} // gets a value when a part of a body arrives; nil: not
	window   bool          // the upstream reopens the first window
	goesAway bool          // the upstream refuses with GOAWAY, not with RST_STREAM
	leaves   bool          // the upstream closes the connection at once
	seen     int           // number of requests
	conns    int
}

func (d *refusingUpstream) failing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen++
	d.fails--
	return d.fails >= 0
}

func (d *refusingUpstream) counts() (conns, seen int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conns, d.seen
}

// serve serves a connection.
func (d *refusingUpstream) serve(c net.Conn) {
	d.mu.Lock()
	d.conns++
	d.mu.Unlock()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(c, c)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = fr.WriteSettings()
	type request struct {
		body  []byte
		fails bool
	}
	requests := make(map[uint32]*request)
	last := uint32(0)
	for {
		frame, err := fr.ReadFrame()
		if err != nil {
			return
		}
		id, end := frame.Header().StreamID, false
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			if requests[id] == nil {
				requests[id] = &request{fails: d.failing()}
			}
			end = f.StreamEnded()
		case *http2.DataFrame:
			n, r := uint32(len(f.Data())), requests[id]
			select {
			case d.arrived <- struct{}{}:
			default:
			}
			if n > 0 {
				_ = fr.WriteWindowUpdate(0, n)
			}
			if r == nil {
				continue // the request was refused
			}
			r.body = append(r.body, f.Data()...)
			if end = f.StreamEnded(); n > 0 && !end && (!r.fails || d.window) {
				_ = fr.WriteWindowUpdate(id, n)
			}
		default:
			continue
		}
		r := requests[id]
		switch {
		case r.fails && (len(r.body) >= d.after || end):
			delete(requests, id)
			if !d.goesAway {
				_ = fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				continue
			}
			_ = fr.WriteGoAway(last, http2.ErrCodeNo, nil)
			if d.leaves {
				return
			}
		case !r.fails && end:
			last = id
			var head bytes.Buffer
			_ = hpack.NewEncoder(&head).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true})
			_ = fr.WriteData(id, true, fmt.Appendf(nil, "%d %x", len(r.body), sum(r.body)))
		}
	}
}

func sum(p []byte) (n uint64) {
	for _, b := range p {
		n = n*31 + uint64(b)
	}
	return n
}

// A request that an HTTP/2 upstream reports as not processed is resent, for
// every method and without a retry policy, if all sent bytes of its body are
// still kept.
func TestUnprocessedRequestsAreResentWithTheirBody(t *testing.T) {
	random := make([]byte, 1<<20)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for _, way := range []*refusingUpstream{
		{fails: 1},
		{fails: 2},
		{fails: 1, goesAway: true},
		{fails: 8 - 1, goesAway: true},
		{fails: 1, goesAway: true, leaves: true},
	} {
		for _, after := range []int{0, 1, 5000, 60_000} {
			schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
				for i, n := range []int{1, 5000, 60_000, 65_535, 65_536, len(random)} {
					for _, sized := range []bool{true, false} {
						if sized != ((i+after)%2 == 0) && after != 5000 {
							continue // the other rows need only one kind of body
						}
						d := &refusingUpstream{fails: way.fails, after: after, goesAway: way.goesAway, leaves: way.leaves}
						table := *table
						table.Default = to(w.back(backs.HTTP2, w.raw(w.serverTLS("h2"), d.serve)))
						s, address := w.gateway(fixed(&table))
						var from io.Reader = bytes.NewReader(random[:n])
						if !sized {
							from = struct{ io.Reader }{from}
						}
						res, err := w.browser().Post(scheme+"://"+address, "", from)
						if err != nil {
							t.Fatal(err)
						}
						body, _ := io.ReadAll(res.Body)
						res.Body.Close()
						if want := fmt.Sprintf("%d %x", n, sum(random[:n])); res.StatusCode != 200 || string(body) != want {
							t.Errorf("%d bytes, sized %v, refused after %d (GOAWAY: %v): %d %q", n, sized, after, way.goesAway, res.StatusCode, body)
						}
						conns, seen := d.counts()
						if seen != way.fails+1 || conns > seen {
							t.Errorf("%d bytes, refused after %d: sent %d times on %d connections", n, after, seen, conns)
						}
						eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 && s.shared.Kept() == 0 })
					}
				}
			})
		}
	}
}

// The gateway answers a request whose body is no longer kept, or that was
// refused too often.
func TestUnprocessedRequestsThatCannotBeResent(t *testing.T) {
	for name, c := range map[string]struct {
		d    *refusingUpstream
		body int
		seen int
	}{
		"the upstream read more than the gateway keeps": {&refusingUpstream{fails: 1, window: true, after: 500_000, goesAway: true}, 1 << 20, 1},
		"each stream is refused":                        {&refusingUpstream{fails: 1000}, 10, 1 + 2},
		"each connection goes away":                     {&refusingUpstream{fails: 1000, goesAway: true}, 10, 8},
	} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			d := &refusingUpstream{fails: c.d.fails, after: c.d.after, window: c.d.window, goesAway: c.d.goesAway}
			table.Default = to(w.back(backs.HTTP2, w.raw(w.serverTLS("h2"), d.serve)))
			s, address := w.gateway(fixed(table))
			res, err := w.browser().Post(scheme+"://"+address, "", bytes.NewReader(make([]byte, c.body)))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			res.Body.Close()
			if conns, seen := d.counts(); res.StatusCode != http.StatusBadGateway || seen != c.seen {
				t.Errorf("%s: %d, sent %d times on %d connections", name, res.StatusCode, seen, conns)
			}
			eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 && s.shared.Kept() == 0 })
		})
	}
}

// A request whose stream is refused goes to another endpoint, if the upstream
// has one.
func TestRefusedRequestsGoToAnotherEndpoint(t *testing.T) {
	w := newTestbed(t)
	full, free := &refusingUpstream{fails: 1000}, &refusingUpstream{}
	back := w.back(backs.HTTP2, w.raw(w.serverTLS("h2"), full.serve), w.raw(w.serverTLS("h2"), free.serve))
	_, address := w.plain(back)
	for range 10 {
		res, err := w.browser().Post("http://"+address, "", bytes.NewReader([]byte("hello")))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Error(res.StatusCode)
		}
	}
	if _, seen := free.counts(); seen != 10 {
		t.Errorf("the endpoint that refuses nothing served %d requests", seen)
	}
}

// If no memory is left to keep a body, it is sent as it arrives and not kept.
func TestKeptBodiesAreBoundedTogether(t *testing.T) {
	w := newTestbed(t)
	// The refusal follows the second part of the body: only then is the first certainly sent
	// and forgotten.
	d := &refusingUpstream{fails: 1, after: 4000, arrived: make(chan struct{}, 1)}
	s, address := w.plain(w.back(backs.HTTP2, w.raw(w.serverTLS("h2"), d.serve)))
	s.shared.LimitKept(1)
	for _, want := range []int{502, 200} {
		body, client := io.Pipe()
		go func() {
			_, _ = client.Write(make([]byte, 2500))
			<-d.arrived
			_, _ = client.Write(make([]byte, 2500))
			client.Close()
		}()
		res, err := w.browser().Post("http://"+address, "", body)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("answered %d, want %d", res.StatusCode, want)
		}
	}
	eventually(t, "no body is kept", func() bool { return s.shared.Kept() == 0 })
}
