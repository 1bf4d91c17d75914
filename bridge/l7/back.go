package l7

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Protocol is a choice of HTTP version.
type Protocol int

// The protocols. With TLS the upstream's certs.Client must offer by ALPN what
// is chosen here.
const (
	Auto  Protocol = iota // HTTP/2 if the upstream negotiates it, else HTTP/1.1; HTTP/1.1 with plaintext
	HTTP1                 // HTTP/1.1
	HTTP2                 // HTTP/2; by prior knowledge with plaintext
)

// BackOptions are a Back's.
type BackOptions struct {
	Upstream *upstream.Upstream
	Protocol Protocol
	TLS      bool // the upstream's endpoints speak TLS

	// SendUpstreamHost sends Host in place of the host that the client asked
	// for; the endpoint's address if Host is "".
	SendUpstreamHost bool
	Host             string

	MaxIdle     int           // most idle connections kept per endpoint; 0: 128
	IdleTimeout time.Duration // how long one is kept idle; 0: 60s
}

// A Back carries requests to one upstream, and keeps connections to its
// endpoints for further requests. It never shares a connection with another
// Back.
type Back struct {
	options   BackOptions
	endpoints map[*upstream.Endpoint]*pool
	retired   atomic.Bool
}

// A pool has the connections to one endpoint.
type pool struct {
	requests *http.Transport
	// upgrades are HTTP/1.1's alone, so they need connections on which the
	// upstream could not choose HTTP/2. None is kept.
	upgrades *http.Transport
}

// NewBack returns a Back. It holds nothing until requests are carried; after
// that it should be Retired when no more are sent.
func NewBack(o BackOptions) *Back {
	b := &Back{options: o, endpoints: make(map[*upstream.Endpoint]*pool)}
	for _, e := range o.Upstream.Order() {
		b.endpoints[e] = b.newPool(e)
	}
	return b
}

// Retire closes idle connections, and lets each other one be closed after the
// request it carries. A request that still comes is served.
func (b *Back) Retire() {
	b.retired.Store(true)
	b.closeIdle()
}

func (b *Back) closeIdle() {
	for _, p := range b.endpoints {
		p.requests.CloseIdleConnections()
	}
}

func (b *Back) scheme() string {
	if b.options.TLS {
		return "https"
	}
	return "http"
}

// host returns the Host that an endpoint is sent; "" means the client's.
func (b *Back) host(e *upstream.Endpoint) string {
	if !b.options.SendUpstreamHost {
		return ""
	}
	if b.options.Host == "" && e.Network() == "unix" {
		return "localhost" // a path is no host
	}
	return cmp.Or(b.options.Host, e.Address())
}

func (b *Back) newPool(e *upstream.Endpoint) *pool {
	var requests, upgrades http.Protocols
	upgrades.SetHTTP1(true)
	switch {
	case b.options.Protocol == HTTP1 || b.options.Protocol == Auto && !b.options.TLS:
		requests.SetHTTP1(true)
	case b.options.Protocol == Auto:
		requests.SetHTTP1(true)
		requests.SetHTTP2(true)
	case b.options.TLS:
		requests.SetHTTP2(true)
	default:
		requests.SetUnencryptedHTTP2(true)
	}
	p := &pool{
		requests: b.newTransport(dialer{endpoint: e, purpose: upstream.HTTP, tls: b.options.TLS, want2: b.options.TLS && b.options.Protocol == HTTP2, refuse2: b.options.Protocol == HTTP1, keep: requests.HTTP1()}, requests),
		upgrades: b.newTransport(dialer{endpoint: e, purpose: upgradePurpose(b.options), tls: b.options.TLS, refuse2: true}, upgrades),
	}
	p.upgrades.DisableKeepAlives = true
	return p
}

// upgradePurpose returns which of an endpoint's TLS settings lead to HTTP/1.1:
// those for streams, which offer nothing by ALPN of themselves, unless those
// for HTTP offer HTTP/1.1 alone.
func upgradePurpose(o BackOptions) upstream.Purpose {
	if o.Protocol == HTTP1 {
		return upstream.HTTP
	}
	return upstream.Stream
}

func (b *Back) newTransport(d dialer, protocols http.Protocols) *http.Transport {
	maxIdle := cmp.Or(b.options.MaxIdle, 128)
	return &http.Transport{
		DialContext:            d.dial,
		DialTLSContext:         d.dial,
		Protocols:              &protocols,
		DisableCompression:     true, // the body is the client's and the upstream's business
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        cmp.Or(b.options.IdleTimeout, time.Minute),
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 1 << 20,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// maxDials bounds the connections made for one request. net/http dials again
// when a new HTTP/2 connection dies before it carried anything, without an
// end: as often as an upstream refuses our certificate.
const maxDials = 4

var errDials = errors.New("connections die before they carry a request")

// A dialer makes a transport's connections.
type dialer struct {
	endpoint *upstream.Endpoint
	purpose  upstream.Purpose
	tls      bool // TLS must be spoken
	want2    bool // HTTP/2 must be negotiated
	refuse2  bool // HTTP/2 must not be
	keep     bool // connections are kept for further requests
}

func (d dialer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	x := exchangeOf(ctx)
	if x != nil && x.dials.Add(1) > maxDials {
		return nil, errDials
	}
	c, err := d.endpoint.Dial(ctx, d.purpose)
	if err != nil {
		return nil, err
	}
	tc, ok := c.(*tls.Conn)
	if ok && x != nil {
		x.dialled.Store(tc)
	}
	if err := d.check(tc); err != nil {
		c.Close()
		return nil, fmt.Errorf("endpoint %s: %w", d.endpoint.Address(), err)
	}
	if d.keep && (tc == nil || tc.ConnectionState().NegotiatedProtocol != "h2") {
		return &kept{Conn: c}, nil // to net/http what is no *tls.Conn speaks HTTP/1
	}
	return c, nil
}

// check reports what a connection lacks. tc is nil for plaintext, which
// net/http would take for TLS that somebody else has seen to.
func (d dialer) check(tc *tls.Conn) error {
	if (tc != nil) != d.tls {
		return &certs.VerifyError{Reason: certs.ReasonLocalConfig, Detail: "the endpoint's TLS settings are not those of its upstream"}
	}
	if tc == nil {
		return nil
	}
	switch is2 := tc.ConnectionState().NegotiatedProtocol == "h2"; {
	case d.want2 && !is2:
		return &certs.VerifyError{Reason: certs.ReasonALPNMismatch, Detail: "the upstream did not negotiate HTTP/2 (h2 by ALPN)"}
	case d.refuse2 && is2:
		return &certs.VerifyError{Reason: certs.ReasonALPNMismatch, Detail: "the upstream negotiated HTTP/2 (h2 by ALPN) where HTTP/1.1 is needed; do not offer h2"}
	}
	return nil
}

// refusal returns why a connection that was dialled for a request is dead, if
// that says more than err does. With TLS 1.3 an upstream judges our certificate
// when the handshake is over for us; its alert is then read by whichever of
// net/http's goroutines comes first, and not always part of what it returns. A
// tls.Conn keeps the alert and gives it to every later Read.
func (x *exchange) refusal(err error) error {
	tc := x.dialled.Load()
	if tc == nil || !saysDead(err) {
		return err
	}
	_ = tc.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // fails only if it is closed, which is as good
	if _, late := tc.Read(make([]byte, 1)); late != nil {
		switch certs.Classify(late) {
		case certs.ReasonOther, certs.ReasonPeerClosed, certs.ReasonHandshakeTimeout, certs.ReasonConnectTimeout:
		default:
			return late
		}
	}
	return err
}

// saysDead reports whether an error means that its connection is of no use to
// anybody, so that it may be read from.
func saysDead(err error) bool {
	for _, dead := range []error{errDials, syscall.EPIPE, syscall.ECONNRESET, net.ErrClosed, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, dead) {
			return true
		}
	}
	// net/http exports no error for a connection that failed as it was new.
	return strings.Contains(err.Error(), "http2: client conn could not be established") ||
		strings.Contains(err.Error(), "http2: client conn is closed")
}
