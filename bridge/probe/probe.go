package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/egress"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Target is one endpoint and the settings to probe it with.
type Target struct {
	Network, Address string // "tcp" and host:port, or "unix" and a path

	// Field is the endpoint's field in its upstream, for suggestions:
	// "endpoints[2]".
	Field string

	// AddressField is the field that sets the address; "": address of Field.
	AddressField string

	// Client holds the TLS settings; only its options are used. Nil: plaintext.
	Client *certs.Client

	// Host is the name for settings that take it from each request.
	Host string

	// ConnectTimeout bounds name resolution and connecting. HandshakeTimeout
	// bounds the TLS handshake. 0: 5s and 10s.
	ConnectTimeout, HandshakeTimeout time.Duration

	// ProxyProtocol is the version of the PROXY protocol in which the probe
	// announces the gateway itself, before TLS.
	ProxyProtocol proxyproto.Version

	// Starttls is the plaintext protocol in which the probe requests TLS from the
	// endpoint. With None the connection begins with TLS.
	Starttls starttls.Protocol

	// Via is the egress proxy to connect through. Nil: connect directly.
	Via *egress.Proxy

	// Request is sent after a successful handshake, on a separate connection. If
	// it is nil, the probe sends no request.
	Request *Request

	// Known are trust bundles that the settings could name. A chain that leads to
	// no trusted CA is verified against them.
	Known []Bundle

	// Certificates are client certificates that the settings could name.
	Certificates []Certificate
}

// A Certificate is a certificate and its name.
type Certificate struct {
	Name string
	Cert *certs.Certificate
}

// A Bundle is a trust bundle and its name.
type Bundle struct {
	Name  string
	Trust *certs.TrustBundle
}

// A Result is the result of a probe. Its texts are bounded and escaped.
type Result struct {
	Reason      certs.Reason // why it failed; "" if it succeeded
	Explanation string       // one sentence with the facts
	Suggestion  Suggestion   // the change to make; zero if none is needed

	RemoteAddress string       // the connected address; "" if connecting failed
	Chain         []certs.Info // the presented certificates, leaf first; at most maxShown
	Version       uint16       // negotiated, like the fields below; zero if the handshake failed
	CipherSuite   uint16
	Group         tls.CurveID
	ALPN          string

	ResumptionOffered bool     // the endpoint sent a session ticket
	ClientRequested   bool     // the endpoint requested a client certificate
	ClientSent        bool     // the gateway sent its certificate
	AcceptableCAs     []string // the CAs whose client certificates the endpoint accepts
	ServerName        string   // sent as SNI, or ""
	VerifyNames       []string // the verified names

	DNS, Connect, Handshake time.Duration // duration of each step; 0: skipped

	Attempts []Attempt // the additional handshakes

	ResponseStatus int // status of the response to the Request; 0 if none arrived
}

// OK reports whether the handshake or, for plaintext, the connection
// succeeded.
func (r *Result) OK() bool { return r.Reason == "" }

// An Attempt is a further handshake with one setting changed.
type Attempt struct {
	Change string       // the field and the value tried: "tls.groups: X25519"
	Reason certs.Reason // why it failed; "" if it succeeded
}

const (
	maxShown    = 20              // certificates of a chain in a Result
	maxAttempts = 6               // maximum number of additional handshakes
	trialTime   = 2 * time.Second // timeout of each step of an additional handshake
	retryTime   = 8 * time.Second // time limit of all additional handshakes
)

// Run probes the target and returns when it has a result or ctx ends. It owns
// every connection that it opens.
func Run(ctx context.Context, t Target) *Result {
	t.ConnectTimeout = cmp.Or(t.ConnectTimeout, 5*time.Second)
	t.HandshakeTimeout = cmp.Or(t.HandshakeTimeout, 10*time.Second)
	var o certs.ClientOptions
	if t.Client != nil {
		o = t.Client.Options()
	}
	first := t.try(ctx, o, timeouts{t.ConnectTimeout, t.HandshakeTimeout})
	r := first.result()
	d := first.explain()
	if ctx.Err() == nil {
		attempts, informative := first.retry(ctx)
		r.Attempts = attempts
		switch {
		case informative != nil:
			d = first.learn(d, informative)
		case first.refusedHello():
			r.Reason, d = search{first}.missing(ctx, d)
		}
	}
	if t.Request != nil && first.reason == "" && ctx.Err() == nil {
		to := requestTrial{first}
		a := to.ask(ctx, t.Request)
		r.ResponseStatus = a.status
		r.Reason, d = to.explainAnswer(d, t.Request, a)
	}
	r.Explanation, r.Suggestion = d.facts, d.advice
	return r
}

// result returns the observations of the trial, without an explanation.
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
			r.Chain = append(r.Chain, certs.Describe(seen.Chain)) // Describe also warns about the chain
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
