package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Target is one endpoint and the settings to probe it with.
type Target struct {
	Network, Address string // "tcp" and host:port, or "unix" and a path

	// Field is the endpoint's place in its upstream, for suggestions:
	// "endpoints[2]".
	Field string

	// AddressField is where the address is set; "": in address of Field.
	AddressField string

	// Client is the TLS settings. Only its options are used. Nil: plaintext.
	Client *certs.Client

	// Host is the name for settings that take it from each request.
	Host string

	// ConnectTimeout bounds name resolution and connection, HandshakeTimeout
	// the TLS handshake. 0: 5s and 10s.
	ConnectTimeout, HandshakeTimeout time.Duration

	// ProxyProtocol is the version of the PROXY protocol by which the endpoint is
	// told that it is us who connect, before TLS.
	ProxyProtocol proxyproto.Version

	// Known are trust bundles that the settings could name. A chain that leads
	// to no trusted CA is tried against them.
	Known []Bundle
}

// A Bundle is a trust bundle by its name.
type Bundle struct {
	Name  string
	Trust *certs.TrustBundle
}

// A Result is what a probe came to. Its texts are fit to be shown.
type Result struct {
	Reason      certs.Reason // why it failed; "" if it did not
	Explanation string       // one sentence that names the facts
	Suggestion  string       // which field to set to what; "" if nothing is to be done

	RemoteAddress string       // connected to; "" if none was
	Chain         []certs.Info // as presented, the leaf first; at most maxShown
	Version       uint16       // negotiated, as what follows; zero if the handshake did not end
	CipherSuite   uint16
	Group         tls.CurveID
	ALPN          string

	ResumptionOffered bool     // the endpoint gave a session ticket
	ClientRequested   bool     // it asked for a client certificate
	ClientSent        bool     // and was sent ours
	AcceptableCAs     []string // whose client certificates it takes
	ServerName        string   // sent as SNI; "" if none was
	VerifyNames       []string // verified

	DNS, Connect, Handshake time.Duration // how long each step took; 0: not done

	Attempts []Attempt // what else was tried
}

// OK reports whether the endpoint shook hands or, if plaintext, was connected
// to.
func (r *Result) OK() bool { return r.Reason == "" }

// An Attempt is a further handshake with one setting changed.
type Attempt struct {
	Change string       // the field and the value tried: "tls.groups: X25519"
	Reason certs.Reason // why it failed; "" if it did not
}

const (
	maxShown    = 20              // certificates of a chain in a Result
	maxAttempts = 6               // further handshakes
	trialTime   = 2 * time.Second // for each step of a further handshake
	retryTime   = 8 * time.Second // for all further handshakes
)

// Run probes the target and returns when it has an answer or ctx ends. It owns
// every connection that it makes.
func Run(ctx context.Context, t Target) *Result {
	t.ConnectTimeout = cmp.Or(t.ConnectTimeout, 5*time.Second)
	t.HandshakeTimeout = cmp.Or(t.HandshakeTimeout, 10*time.Second)
	var o certs.ClientOptions
	if t.Client != nil {
		o = t.Client.Options()
	}
	first := t.try(ctx, o, waits{t.ConnectTimeout, t.HandshakeTimeout})
	r := first.result()
	d := first.explain()
	if ctx.Err() == nil {
		attempts, telling := first.retry(ctx)
		if r.Attempts = attempts; telling != nil {
			d = first.learn(d, telling)
		}
	}
	r.Explanation, r.Suggestion = d.facts, d.advice
	return r
}

// result returns what the trial saw, without an explanation.
func (t *trial) result() *Result {
	r := &Result{
		Reason:        t.reason,
		RemoteAddress: t.remote,
		DNS:           t.dns,
		Connect:       t.connect,
		Handshake:     t.handshake,
	}
	seen := t.seen
	if seen == nil {
		return r
	}
	for i := range seen.Chain[:min(len(seen.Chain), maxShown)] {
		if i == 0 {
			r.Chain = append(r.Chain, certs.Describe(seen.Chain)) // warns of the chain too
		} else {
			r.Chain = append(r.Chain, certs.Describe(seen.Chain[i:i+1]))
		}
	}
	if seen.State.HandshakeComplete {
		r.Version, r.CipherSuite, r.Group = seen.State.Version, seen.State.CipherSuite, seen.State.CurveID
		r.ALPN = escape(seen.State.NegotiatedProtocol)
	}
	r.ResumptionOffered = seen.TicketOffered
	r.ClientRequested, r.ClientSent = seen.Requested, seen.Sent
	r.AcceptableCAs = seen.AcceptableCAs
	r.ServerName, r.VerifyNames = seen.ServerName, seen.VerifyNames
	return r
}
