package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A holdServer is an HTTP server that answers a request once it is released.
type holdServer struct {
	address string

	mu    sync.Mutex
	conns map[net.Conn]int // open connections, with the number of held requests
	held  map[string]chan struct{}
}

type connKey struct{}

func newHoldServer(t *testing.T, issued *pki.Issued, protos ...string) *holdServer {
	h := &holdServer{conns: map[net.Conn]int{}, held: map[string]chan struct{}{}}
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		h.mu.Lock()
		defer h.mu.Unlock()
		switch state {
		case http.StateNew:
			h.conns[c] = 0
		case http.StateClosed, http.StateHijacked:
			delete(h.conns, c)
		}
	}
	if issued == nil {
		s.Start()
	} else {
		s.EnableHTTP2 = slices.Contains(protos, "h2")
		s.TLS = &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, issued)}, NextProtos: protos}
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	h.address = s.Listener.Addr().String()
	return h
}

// ServeHTTP holds requests with an ID, and answers others at once.
func (h *holdServer) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("Hold")
	if id == "" {
		return
	}
	conn, released := r.Context().Value(connKey{}).(net.Conn), make(chan struct{})
	h.mu.Lock()
	h.conns[conn]++
	h.held[id] = released
	h.mu.Unlock()
	select {
	case <-released:
	case <-r.Context().Done():
	}
	h.mu.Lock()
	if _, open := h.conns[conn]; open {
		h.conns[conn]--
	}
	delete(h.held, id)
	h.mu.Unlock()
}

func (h *holdServer) holds(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held[id] != nil
}

func (h *holdServer) release(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.held[id]; c != nil {
		close(c)
	}
}

// open returns the open connections, with the number of held requests.
func (h *holdServer) open() map[net.Conn]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.conns)
}

// A holdClient is one HTTP connection through the gateway.
type holdClient struct {
	transport
	listener string
	ended    atomic.Bool // the gateway ended the connection
	held     []*heldRequest
}

// A transport makes requests on one connection.
type transport interface {
	// request makes a request. The server holds it if id is not empty.
	request(id string) error
	streams() int // streams returns how many concurrent requests the transport supports.
}

type heldRequest struct {
	id   string
	done chan struct{} // closed when the request is answered or has failed
}

// dialHold connects to a listener. config is nil for plaintext.
func dialHold(t *testing.T, listener, address string, config *tls.Config) (*holdClient, error) {
	c := &holdClient{listener: listener}
	raw, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { raw.Close() })
	conn := net.Conn(endNoter{raw, &c.ended})
	if config != nil && slices.Contains(config.NextProtos, "h2") {
		h := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: config, DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
		cc, err := h.NewClientConn(t.Context(), "https", address)
		c.transport = transport2{t, cc}
		return c, err
	}
	if config != nil {
		conn = tls.Client(conn, config)
	}
	h := &transport1{Conn: conn, answers: make(chan error), ended: &c.ended}
	go h.read()
	c.transport = h
	return c, nil
}

// An endNoter is a connection that records when the gateway ends it.
type endNoter struct {
	net.Conn
	ended *atomic.Bool
}

func (c endNoter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.ended.Store(true)
	}
	return n, err
}

// Close records the end too: after a close_notify, the HTTP/2 client closes the
// connection without reading to its end.
func (c endNoter) Close() error {
	c.ended.Store(true)
	return c.Conn.Close()
}

// A transport1 is an HTTP/1.1 connection. Unlike the transport of package http, it never
// closes the connection by itself.
type transport1 struct {
	net.Conn
	answers chan error // closed at the end of the connection
	ended   *atomic.Bool
}

func (c *transport1) read() {
	defer close(c.answers)
	defer c.ended.Store(true) // after close_notify the connection is not read to its end
	r := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return
		}
		if _, err = io.Copy(io.Discard, resp.Body); err != nil {
			return
		}
		c.answers <- nil
	}
}

func (c *transport1) request(id string) error {
	head := "GET / HTTP/1.1\r\nHost: front.example\r\n"
	if id != "" {
		head += "Hold: " + id + "\r\n"
	}
	if _, err := io.WriteString(c, head+"\r\n"); err != nil {
		return err
	}
	if _, ok := <-c.answers; !ok {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (c *transport1) streams() int { return 1 }

// A transport2 is an HTTP/2 connection.
type transport2 struct {
	t *testing.T
	*http.ClientConn
}

func (c transport2) request(id string) error {
	req, err := http.NewRequestWithContext(c.t.Context(), "GET", "https://front.example/", http.NoBody)
	if err != nil {
		return err
	}
	if id != "" {
		req.Header.Set("Hold", id)
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func (c transport2) streams() int { return 2 }

// begin begins a request and returns when the server holds it or the request has ended.
func (c *holdClient) begin(t *testing.T, id string, h *holdServer) {
	r := &heldRequest{id: id, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		_ = c.request(id) // fails if the connection is closed meanwhile
	}()
	eventually(t, "a request is held or has ended", func() bool { return h.holds(id) || r.hasEnded() })
	if !r.hasEnded() {
		c.held = append(c.held, r)
	}
}

func (r *heldRequest) hasEnded() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// release lets the server answer some requests.
func (c *holdClient) release(h *holdServer, choose func() bool) {
	var still, ended []*heldRequest
	for _, r := range c.held {
		if choose() {
			h.release(r.id)
			ended = append(ended, r)
		} else {
			still = append(still, r)
		}
	}
	for _, r := range ended {
		<-r.done
	}
	c.held = still
}

// A setting is one varying part of the configuration of an impactTestbed.
type setting struct {
	name     string
	variants int
}

var worldSettings = []setting{
	{"corp", 3}, {"partners", 3}, {"front", 2}, {"one", 5}, {"two", 5}, {"plain", 4}, {"to-one", 4}, {"to-two", 5}, {"to-plain", 4},
}

// absent is the variant of an upstream or listener that does not exist.
const absent = 3

// An impactTestbed is a gateway with three upstreams and a listener for each. The
// test varies its configuration at random while clients have requests in progress.
type impactTestbed struct {
	*testGateway
	random      *rand.Rand
	ca, partner *certstest.CA
	bundles     map[string]*adminv1.TrustBundle // by name and variant
	fronts      []*adminv1.Certificate
	tls         *tls.Config
	servers     map[string]*holdServer // by upstream
	variant     map[string]int
	clients     []*holdClient
	requests    int
}

func newImpactTestbed(t *testing.T, seed uint64) *impactTestbed {
	w := &impactTestbed{
		testGateway: start(t, "", func(o *Options) { o.DrainTimeout = time.Minute }), random: rand.New(rand.NewPCG(16, seed)),
		ca: certstest.NewCA(t), partner: certstest.NewCA(t), variant: map[string]int{}, servers: map[string]*holdServer{},
	}
	other, revoked := certstest.NewCA(t), w.ca.Server(t, "one.example")
	w.servers["one"] = newHoldServer(t, revoked, "http/1.1")
	w.servers["two"] = newHoldServer(t, w.ca.Server(t, "two.example"), "h2", "http/1.1")
	w.servers["plain"] = newHoldServer(t, nil)
	both := func(name string, ca *certstest.CA) *adminv1.TrustBundle {
		return &adminv1.TrustBundle{Name: name, Source: &adminv1.TrustBundle_Pem{Pem: string(ca.TrustPEM()) + string(other.TrustPEM())}}
	}
	w.bundles = map[string]*adminv1.TrustBundle{
		"corp0": bundle("corp", w.ca), "corp1": both("corp", w.ca), "corp2": bundle("corp", w.ca, w.ca.CRL(t, revoked.Leaf)),
		"partners0": bundle("partners", w.partner), "partners1": both("partners", w.partner), "partners2": bundle("partners", other),
	}
	for range 2 {
		w.fronts = append(w.fronts, inlineCertificate("front", w.ca.Server(t, "front.example")))
	}
	w.tls = &tls.Config{RootCAs: w.ca.Pool(), ServerName: "front.example", Certificates: []tls.Certificate{certstest.TLS(t, w.partner.Client(t, "partner"))}}
	w.apply(w.edit())
	return w
}

func (w *impactTestbed) upstream(name string) *adminv1.Upstream {
	u := upstreamTo(name, w.servers[name].address, nil)
	if name == "plain" {
		u.Transport = &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}
	}
	switch v := w.variant[name]; {
	case v == 1:
		u.Labels = map[string]string{"a": "b"}
	case v == 2:
		u.Pool = &adminv1.Pool{IdleTimeout: durationpb.New(50 * time.Second)}
	case v == 4 && name == "one":
		u.GetTls().Revalidation = &adminv1.Revalidation{Action: adminv1.RevalidationAction_REVALIDATION_ACTION_CLOSE}
	case v == 4:
		u.GetTls().VerifyDepth = new(int32(5))
	}
	return u
}

func (w *impactTestbed) listenerTo(name string) *adminv1.Listener {
	l := httpListener("to-"+name, "127.0.0.1:0")
	l.Upstream = name
	if name == "two" {
		l.Tls = &adminv1.ServerTls{Certificates: []string{"front"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"partners"}}
	}
	switch w.variant[l.Name] {
	case 1:
		l.Address = "127.0.0.2:0"
	case 2:
		l.Timeouts = &adminv1.ListenerTimeouts{Idle: durationpb.New(50 * time.Second)}
	case 4:
		l.Tls.ClientAuth = adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL
	}
	return l
}

// edit returns an edit that applies the present variants.
func (w *impactTestbed) edit() store.Edit {
	e := store.Edit{Impact: true, Puts: puts(w.bundles[fmt.Sprint("corp", w.variant["corp"])], w.bundles[fmt.Sprint("partners", w.variant["partners"])], w.fronts[w.variant["front"]])}
	exists := func(k adminv1.Kind, name string) bool { return w.State().Get(k, name) != nil }
	for name := range w.servers {
		if w.variant[name] == absent {
			w.variant["to-"+name] = absent
		}
		if w.variant["to-"+name] != absent {
			e.Puts = append(e.Puts, puts(w.listenerTo(name))...)
		} else if exists(adminv1.Kind_KIND_LISTENER, "to-"+name) {
			e.Deletes = append(e.Deletes, store.Delete{Kind: adminv1.Kind_KIND_LISTENER, Name: "to-" + name})
		}
		if w.variant[name] != absent {
			e.Puts = append(e.Puts, puts(w.upstream(name))...)
		} else if exists(adminv1.Kind_KIND_UPSTREAM, name) {
			e.Deletes = append(e.Deletes, store.Delete{Kind: adminv1.Kind_KIND_UPSTREAM, Name: name})
		}
	}
	return e
}

// vary changes some random settings.
func (w *impactTestbed) vary() {
	for range 1 + w.random.IntN(3) {
		s := worldSettings[w.random.IntN(len(worldSettings))]
		w.variant[s.name] = w.random.IntN(s.variants)
	}
}

// server returns the server behind a listener.
func (w *impactTestbed) server(listener string) *holdServer {
	return w.servers[w.State().Get(adminv1.Kind_KIND_LISTENER, listener).(*adminv1.Listener).GetUpstream()]
}

// connect gives each listener clients, each with some requests in progress.
func (w *impactTestbed) connect() {
	count := map[string]int{}
	for _, c := range w.clients {
		count[c.listener]++
	}
	for _, l := range w.Status().GetListeners() {
		for ; l.GetState() == adminv1.ListenerState_LISTENER_STATE_UP && count[l.GetName()] < 4; count[l.GetName()]++ {
			var config *tls.Config
			if l.GetName() == "to-two" {
				config = w.tls.Clone()
				config.NextProtos = [][]string{{"http/1.1"}, {"h2", "http/1.1"}}[w.random.IntN(2)]
			}
			c, err := dialHold(w.t, l.GetName(), l.GetBoundAddress(), config)
			if err != nil || c.request("") != nil {
				continue // the listener does not accept the client's certificate
			}
			w.clients = append(w.clients, c)
		}
	}
	for _, c := range w.clients {
		h := w.server(c.listener)
		for range c.streams() {
			w.requests++
			c.begin(w.t, fmt.Sprint(w.requests), h)
		}
	}
	for _, c := range w.clients {
		c.release(w.server(c.listener), func() bool { return w.random.IntN(2) == 0 })
	}
}
