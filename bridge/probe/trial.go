package probe

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptrace"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// timeouts are the timeouts of each step.
type timeouts struct{ connect, handshake time.Duration }

// A trial is one connection to the target, and its result.
type trial struct {
	target   *Target
	options  certs.ClientOptions // options of the TLS settings
	timeouts timeouts

	err    error // nil if traffic could use the connection
	reason certs.Reason

	cutShort   bool // the whole probe ends before the timeout of the last step
	connected  bool
	remote     string
	seen       *certs.Observation // nil if the handshake did not begin
	firstBytes []byte             // first bytes from the endpoint
	received   int                // total bytes from the endpoint
	sent       []byte             // the record with the ClientHello

	dns, connect, handshake time.Duration
}

// try opens one connection with the options o.
func (t *Target) try(ctx context.Context, o certs.ClientOptions, w timeouts) *trial {
	out := &trial{target: t, options: o, timeouts: w}
	raw, err := out.dial(ctx)
	if err != nil {
		return out.fail(err)
	}
	defer raw.Close()
	if err := t.announce(raw); err != nil {
		return out.fail(err)
	}
	if t.Client == nil {
		return out
	}
	client, err := certs.NewClient(o)
	if err != nil {
		return out.fail(err)
	}
	out.cutShort = endsWithin(ctx, w.handshake)
	ctx, cancel := context.WithTimeout(ctx, w.handshake)
	defer cancel()
	if err := t.Starttls.Upgrade(ctx, raw); err != nil {
		return out.fail(err)
	}
	conn := &recorder{Conn: raw}
	out.seen, err = client.Observe(ctx, conn, t.Host)
	if out.seen != nil {
		out.handshake = out.seen.Elapsed
		if out.seen.Conn != nil {
			defer out.seen.Conn.Close()
		}
		if err == nil {
			err = out.seen.Alert
		}
	}
	err = t.Starttls.Explain(err)
	out.firstBytes, out.received, out.sent = conn.first, conn.total, conn.hello
	if err == nil {
		return out
	}
	out.fail(err)
	if out.reason == certs.ReasonNotTLS {
		out.firstBytes = conn.readFirst()
	}
	return out
}

// open opens another connection and completes the steps before TLS on it. Reads
// and writes of the connection fail once ctx ends. The caller calls done, which
// closes it.
func (t *Target) open(ctx context.Context, w timeouts) (conn net.Conn, done func(), err error) {
	raw, err := (&trial{target: t, timeouts: w}).dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	done = func() {
		stop()
		raw.Close()
	}
	if err = t.announce(raw); err == nil && t.Client != nil {
		err = t.Starttls.Upgrade(ctx, raw)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return raw, done, nil
}

// announce sends the PROXY protocol header, if one is configured.
func (t *Target) announce(conn net.Conn) error {
	header := t.ProxyProtocol.Header(nil, nil)
	if header == nil {
		return nil
	}
	_, err := conn.Write(header)
	return err
}

func (t *trial) fail(err error) *trial {
	t.err, t.reason = err, certs.Classify(err)
	return t
}

// dial connects like traffic, and measures each step.
func (t *trial) dial(ctx context.Context) (net.Conn, error) {
	t.cutShort = endsWithin(ctx, t.timeouts.connect)
	ctx, cancel := context.WithTimeout(ctx, t.timeouts.connect)
	defer cancel()
	start := time.Now()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSDone: func(httptrace.DNSDoneInfo) { t.dns = time.Since(start) },
	})
	raw, err := t.target.reach(ctx)
	if t.connect = time.Since(start) - t.dns; err != nil {
		return nil, err
	}
	t.connected, t.remote = true, raw.RemoteAddr().String()
	switch {
	case t.target.Network == "unix":
		t.remote = "unix:" + t.target.Address
	case t.target.Via != nil:
		t.remote = t.target.Via.Address // the proxy does not report the endpoint's address
	}
	return raw, nil
}

// reach connects to the endpoint, through its proxy if it has one.
func (t *Target) reach(ctx context.Context) (net.Conn, error) {
	if t.Via != nil {
		return t.Via.Dial(ctx, t.Network, t.Address)
	}
	return resolve.Dial(ctx, t.Network, t.Address)
}

// endsWithin reports whether ctx ends before d has passed.
func endsWithin(ctx context.Context, d time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < d
}

// leaf returns the presented leaf, or nil.
func (t *trial) leaf() *x509.Certificate {
	if t.seen == nil || len(t.seen.Chain) == 0 {
		return nil
	}
	return t.seen.Chain[0]
}

func (t *trial) now() time.Time {
	if t.options.Time != nil {
		return t.options.Time()
	}
	return time.Now()
}

// detail returns the result of the gateway's own checks, or the error's text.
func (t *trial) detail() string {
	var v *certs.VerifyError
	if errors.As(t.err, &v) {
		return v.Detail
	}
	var h *certs.HandshakeError
	if errors.As(t.err, &h) {
		return certs.ErrorText(h.Err)
	}
	return certs.ErrorText(t.err)
}

// maxFirstBytes bounds the kept bytes of plaintext from an endpoint.
const maxFirstBytes = 512

// listenTime is how long the probe listens to an endpoint that speaks no TLS.
const listenTime = 250 * time.Millisecond

// A recorder keeps the first bytes read, and the first bytes written: crypto/tls
// writes a ClientHello at once.
type recorder struct {
	net.Conn
	first []byte
	total int
	hello []byte
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.hello == nil {
		r.hello = bytes.Clone(p)
	}
	return r.Conn.Write(p)
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.total += n
	r.first = append(r.first, p[:min(n, maxFirstBytes-len(r.first))]...)
	return n, err
}

// readFirst returns the first bytes, and further ones that arrive soon: a TLS
// client stops at the fifth.
func (r *recorder) readFirst() []byte {
	r.SetReadDeadline(time.Now().Add(listenTime))
	buf := make([]byte, maxFirstBytes)
	for len(r.first) < maxFirstBytes {
		if _, err := r.Read(buf[:maxFirstBytes-len(r.first)]); err != nil {
			break
		}
	}
	return r.first
}
