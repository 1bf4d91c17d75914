package snapshot

import (
	"cmp"
	"crypto/tls"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/egress"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A liveUpstream is an Upstream resource and the live object built from it. While it
// is down, live is an upstream without endpoints, which rejects all traffic.
type liveUpstream struct {
	msg     *adminv1.Upstream
	uses    upstreamUses
	live    *upstream.Upstream
	back    *backs.Pools
	tracker *upstream.Tracker          // shared by all revisions
	times   *upstream.Latencies        // shared by all revisions
	clients map[string]endpointClients // by address; empty with dns
	down    string

	requirement

	proxy *egress.Proxy // the proxy for connections, or nil

	// With dns: the lookup, which revisions with equal queries share, and the
	// function that builds an endpoint for an address.
	name     *resolve.Name
	endpoint func(resolve.Address, *upstream.Endpoint) (upstream.EndpointOptions, error)

	notes notes
}

// endpointClients holds the TLS clients of one endpoint, nil for plaintext. Streams
// and HTTP have one each, because they differ in ALPN and share no sessions.
type endpointClients struct{ stream, http *certs.Client }

// upstreamUses holds the live objects that an upstream is built from.
type upstreamUses struct {
	certificate *certs.Certificate
	trust       []*certs.TrustBundle
	proxy       proxyUses
}

func (u upstreamUses) equal(v upstreamUses) bool {
	return u.certificate == v.certificate && slices.Equal(u.trust, v.trust) && u.proxy.equal(v.proxy)
}

func (j *job) upstream(msg *adminv1.Upstream) *liveUpstream {
	s := upstreamScope{j.scope(msg)}
	prev := j.prev.upstreams.Get(msg.GetName())
	next := &liveUpstream{msg: msg, times: new(upstream.Latencies), clients: map[string]endpointClients{}}
	if prev != nil {
		next.tracker, next.times = prev.tracker, prev.times
	} else {
		next.tracker = j.newTracker(msg.GetName())
	}
	next.policy = new(validity.Policy)
	if t := msg.GetTls(); t != nil {
		if t.GetCertificate() != "" {
			next.uses.certificate = s.useCertificate("tls.certificate", t.GetCertificate())
		}
		next.uses.trust = s.useTrust("tls.trust_bundles", t.GetTrustBundles())
	}
	next.uses.proxy = s.useProxy(msg)
	if overTLS(msg) && len(msg.GetTls().GetTrustBundles()) == 0 {
		next.uses.trust = s.systemTrust("tls.trust_bundles")
	}
	if prev != nil && prev.down == "" && s.Len() == 0 && prev.uses.equal(next.uses) && sameInputs(prev.msg, msg) {
		next.live, next.back, next.clients, next.notes = prev.live, prev.back, prev.clients, prev.notes
		next.name, next.endpoint, next.requirement, next.proxy = prev.name, prev.endpoint, prev.requirement, prev.proxy
		s.reuse(next.notes)
		s.warnOfIssuer(next)
		s.close()
		return unlessSame(prev, next, prev.msg == msg)
	}
	s.buildUpstream(next, prev)
	next.notes = s.notes()
	s.warnOfIssuer(next)
	next.down = s.close()
	switch {
	case s.elsewhere:
		return nil
	case next.down == "":
	case prev != nil && prev.down != "":
		next.live, next.back = prev.live, prev.back
	default:
		next.live = upstream.New(upstream.Options{Name: msg.GetName(), Logger: j.log})
		next.back = backs.New(backs.Options{Upstream: next.live})
		if prev != nil {
			next.policy = prev.policy // the requirement for open connections has not changed
		}
	}
	return next
}

// overTLS reports whether the gateway itself speaks TLS to the endpoints.
func overTLS(msg *adminv1.Upstream) bool {
	return msg.GetPlaintext() == nil && msg.GetPassthrough() == nil
}

// checkPassthrough rejects settings that have no effect if the client's TLS is
// forwarded unchanged: the gateway knows only the SNI of such connections.
func (s upstreamScope) checkPassthrough(msg *adminv1.Upstream) {
	if msg.GetPassthrough() == nil {
		return
	}
	for _, f := range []struct {
		at  invalid.Path
		set bool
	}{
		{"http", msg.GetHttp() != nil}, {"pool", msg.GetPool() != nil}, {"timeouts.handshake", msg.GetTimeouts().GetHandshake() != nil},
		{"tcp.server_speaks_first", msg.GetTcp().GetServerSpeaksFirst()},
	} {
		if f.set {
			s.Add(f.at, "must be left out with passthrough: the client's TLS is forwarded unchanged")
		}
	}
}

func maxIdle(msg *adminv1.Upstream) *int32 {
	if p := msg.GetPool(); p != nil {
		return p.MaxIdle
	}
	return nil
}

func (s upstreamScope) buildUpstream(u, prev *liveUpstream) {
	msg := u.msg
	o := upstream.Options{
		Name:             msg.GetName(),
		ConnectTimeout:   s.duration("timeouts.connect", msg.GetTimeouts().GetConnect()),
		HandshakeTimeout: s.duration("timeouts.handshake", msg.GetTimeouts().GetHandshake()),
		IdleTimeout:      s.duration("timeouts.idle", msg.GetTimeouts().GetIdle()),
		Limits:           s.limits(msg),
		Logger:           s.job.log,
		Tracker:          u.tracker,
		Latencies:        u.times,
		Observer:         s.job.observer,
		Filling:          s.job.filling,
		Descriptors:      s.job.descriptors,
		Starttls:         s.starttls(msg),
		RetryBudget:      s.retryBudget(msg.GetLimits().GetRetryBudget()),
		StreamAge:        s.age("tcp.max_connection_age", msg.GetTcp().GetMaxConnectionAge()),
	}
	if prev != nil && prev.down == "" {
		o.Replaces = prev.live
	}
	if u.proxy = s.via(u); u.proxy != nil {
		o.Connect = u.proxy.Dial
	}
	s.checkPassthrough(msg)
	s.balancing(msg, &o)
	back := backs.Options{
		TLS:         overTLS(msg),
		MaxIdle:     s.countOrOff("pool.max_idle", maxIdle(msg), 100_000),
		IdleTimeout: s.duration("pool.idle_timeout", msg.GetPool().GetIdleTimeout()),
		MaxAge:      s.duration("pool.max_age", msg.GetPool().GetMaxAge()),
	}
	o.Warm, o.WarmAge = s.warm(msg, back.IdleTimeout, back.MaxAge)
	if enum(msg.GetSendProxyProtocol(), adminv1.SendProxyProtocol_name) {
		o.ProxyProtocol = proxyVersions[msg.GetSendProxyProtocol()]
	}
	if enum(msg.GetHttp().GetProtocol(), adminv1.HttpProtocol_name) {
		back.Protocol = httpProtocols[msg.GetHttp().GetProtocol()]
	}
	if enum(msg.GetHttp().GetHost(), adminv1.HostHeader_name) {
		back.SendUpstreamHost = msg.GetHttp().GetHost() == adminv1.HostHeader_HOST_HEADER_UPSTREAM
		back.Host = msg.GetTls().GetServerName()
	}
	o.Check = s.healthCheck(msg, back.Protocol)
	o.Outliers = s.outliers(msg)
	var settings *certs.ClientOptions
	if back.TLS {
		settings = s.clientOptions(u)
		var before requirement
		if prev != nil {
			before = prev.requirement
		}
		s.require(u, settings, before)
	}

	switch {
	case len(msg.GetEndpoints()) == 0 && msg.GetDns() == nil:
		s.Add("endpoints", "must have at least one endpoint, unless dns is set")
	case len(msg.GetEndpoints()) > 0 && msg.GetDns() != nil:
		s.Add("dns", "must be left out where endpoints is set: an upstream has either fixed endpoints or dns")
	case msg.GetDns() != nil:
		o.DNS = s.dns(u, prev, settings, back.Protocol)
	}
	seen := map[string]bool{}
	for i, e := range msg.GetEndpoints() {
		at := invalid.Path("endpoints").Index(i)
		network, addr, host, problem := dialAddress(e.GetAddress())
		if problem != "" {
			s.Add(at.Field("address"), "%s", problem)
			continue
		}
		if seen[addr] {
			s.Add(at.Field("address"), "is %q, which the upstream has twice; give one endpoint a weight instead", e.GetAddress())
		}
		seen[addr] = true
		eo := upstream.EndpointOptions{
			Network:  network,
			Address:  addr,
			Weight:   s.count(at.Field("weight"), e.Weight, maxWeight),
			Backup:   e.GetBackup(),
			Draining: e.GetDraining(),
		}
		if settings != nil {
			var before endpointClients
			if prev != nil {
				before = prev.clients[addr]
			}
			u.clients[addr] = s.clients(at, *settings, host, back.Protocol, before)
			eo.Stream, eo.HTTP = u.clients[addr].stream, u.clients[addr].http
			if eo.HTTP == nil { // without TLS clients it would be an endpoint in plaintext
				continue
			}
		}
		o.Endpoints = append(o.Endpoints, eo)
	}
	if s.Len() > 0 {
		return
	}
	if prev.keeps(u) {
		u.proxy = prev.proxy
		u.live, u.back, u.clients, u.name, u.endpoint, u.verifier = prev.live, prev.back, prev.clients, prev.name, prev.endpoint, prev.verifier
		return
	}
	u.live = upstream.New(o)
	back.Upstream, back.Logger = u.live, s.job.log
	u.back = backs.New(back)
}

// warm returns how many connections are kept warm, and for how long.
func (s upstreamScope) warm(msg *adminv1.Upstream, idleTimeout, maxAge time.Duration) (n int, age time.Duration) {
	n = s.limit("pool.warm", msg.GetPool().GetWarm(), 1000)
	if n == 0 {
		return 0, 0
	}
	switch {
	case msg.GetPlaintext() != nil:
		s.Add("pool.warm", "must be left out with plaintext: there is no TLS handshake to make in advance")
	case msg.GetTls().GetServerNameSource() == adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST:
		s.Add("pool.warm", "must be left out where tls.server_name_source is SERVER_NAME_SOURCE_FROM_HOST: the host that a client will request is not known in advance")
	case proxyVersions[msg.GetSendProxyProtocol()] != proxyproto.None:
		s.Add("pool.warm", "must be left out where send_proxy_protocol is set: the client that a connection will announce is not known in advance")
	case msg.GetTls().GetStarttls() == adminv1.Starttls_STARTTLS_POSTGRES:
		// The server process of a connection knows only sessions that began before its
		// own (up to PostgreSQL 17), and a CancelRequest may use any connection.
		s.Add("pool.warm", "must be left out where tls.starttls is STARTTLS_POSTGRES: a server ignores a request to cancel a statement that arrives on a connection made before the session")
	case starttlsProtocols[msg.GetTls().GetStarttls()].ServerSpeaksFirst():
		s.Add("pool.warm", "must be left out where tls.starttls is %v: a server's greeting belongs to the client whose connection receives it", msg.GetTls().GetStarttls())
	case msg.GetTcp().GetServerSpeaksFirst():
		s.Add("pool.warm", "must be left out where tcp.server_speaks_first is set: a server's greeting belongs to the client whose connection receives it")
	}
	for _, limit := range []struct {
		at invalid.Path
		d  time.Duration
	}{{"pool.idle_timeout", idleTimeout}, {"pool.max_age", maxAge}} {
		if limit.d > 0 && limit.d < time.Second {
			s.Add(limit.at, "is %v; where pool.warm is set it must be at least 1s, or connections would be closed as soon as they are made", limit.d)
		}
	}
	age = cmp.Or(idleTimeout, 50*time.Second)
	if maxAge > 0 {
		age = min(age, maxAge)
	}
	return n, age
}

var proxyVersions = map[adminv1.SendProxyProtocol]proxyproto.Version{
	adminv1.SendProxyProtocol_SEND_PROXY_PROTOCOL_V1: proxyproto.V1,
	adminv1.SendProxyProtocol_SEND_PROXY_PROTOCOL_V2: proxyproto.V2,
}

var httpProtocols = map[adminv1.HttpProtocol]backs.Protocol{
	adminv1.HttpProtocol_HTTP_PROTOCOL_AUTO: backs.Auto,
	adminv1.HttpProtocol_HTTP_PROTOCOL_1_1:  backs.HTTP1,
	adminv1.HttpProtocol_HTTP_PROTOCOL_2:    backs.HTTP2,
}

// renegotiation sets whether a server may renegotiate after the handshake.
func (s upstreamScope) renegotiation(o *certs.ClientOptions, msg *adminv1.Upstream) {
	const at = "tls.renegotiation"
	r := msg.GetTls().GetRenegotiation()
	if !enum(r, adminv1.Renegotiation_name) || r != adminv1.Renegotiation_RENEGOTIATION_ONCE {
		return
	}
	o.RenegotiateOnce = true
	switch {
	case msg.GetHttp().GetProtocol() == adminv1.HttpProtocol_HTTP_PROTOCOL_2:
		s.Add(at, "must be RENEGOTIATION_NEVER with http.protocol HTTP_PROTOCOL_2: HTTP/2 forbids renegotiation (RFC 9113, section 9.2.1)")
	case o.MinVersion >= tls.VersionTLS13:
		s.Warn(warnNoEffect, at, "has no effect: min_version is TLS 1.3, which has no renegotiation")
	case msg.GetHttp().GetProtocol() != adminv1.HttpProtocol_HTTP_PROTOCOL_1_1:
		s.Warn(warnNoEffect, at, "has no effect on connections that negotiate HTTP/2: set http.protocol to HTTP_PROTOCOL_1_1")
	}
}

// names checks the names to send and to verify.
func (s upstreamScope) names(o *certs.ClientOptions, t *adminv1.UpstreamTls) {
	var err error
	if o.SubjectAltNames, err = certs.ParseSANs(t.GetSubjectAltNames()); err != nil {
		s.addFaults("tls.subject_alt_names", err)
	}
	if o.Pins, err = certs.ParsePins(t.GetSpkiPins()); err != nil {
		s.addFaults("tls.spki_pins", err)
	}
	if len(o.SubjectAltNames) > 0 && t.GetVerifyName() != "" {
		s.Add("tls.verify_name", "must be left out where subject_alt_names is set: the certificate must have one of those")
	}
	if !enum(t.GetServerNameSource(), adminv1.ServerNameSource_name) {
		return
	}
	switch t.GetServerNameSource() {
	case adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST:
		o.FromHost = true
		if t.GetServerName() != "" {
			s.Add("tls.server_name", "must be left out: server_name_source takes it from the client's host")
		}
	case adminv1.ServerNameSource_SERVER_NAME_SOURCE_NONE:
		o.NoServerName = true
	}
	if t.GetVerification() == adminv1.Verification_VERIFICATION_INSECURE_SKIP && (len(o.Pins) > 0 || len(o.SubjectAltNames) > 0) {
		s.Add("tls.verification", "must not be VERIFICATION_INSECURE_SKIP where spki_pins or subject_alt_names is set: nothing would check them")
	}
}

// alpn returns the protocols that are offered by default.
func alpn(p backs.Protocol) []string {
	switch p {
	case backs.HTTP1:
		return []string{"http/1.1"}
	case backs.HTTP2:
		return []string{"h2"}
	}
	return []string{"h2", "http/1.1"}
}

// clientOptions returns the TLS settings that all endpoints share.
func (s upstreamScope) clientOptions(u *liveUpstream) *certs.ClientOptions {
	t := u.msg.GetTls() // nil means all defaults
	settings := s.tlsSettings("tls", t)
	o := &certs.ClientOptions{
		Certificate:    u.uses.certificate,
		Trust:          u.uses.trust,
		Time:           s.job.now,
		ServerName:     strings.TrimSuffix(t.GetServerName(), "."),
		VerifyName:     strings.TrimSuffix(t.GetVerifyName(), "."),
		MinVersion:     settings.minVersion,
		MaxVersion:     settings.maxVersion,
		CipherSuites:   settings.cipherSuites,
		Groups:         settings.groups,
		NextProtos:     settings.alpn,
		NoSessionReuse: t != nil && t.SessionReuse != nil && !t.GetSessionReuse(),
	}
	s.names(o, t)
	s.renegotiation(o, u.msg)
	if t != nil && t.VerifyDepth != nil {
		depth := uint32(s.limit("tls.verify_depth", t.GetVerifyDepth(), 100))
		o.VerifyDepth = &depth
	}
	for _, n := range []struct {
		at   invalid.Path
		name string
	}{{"tls.server_name", t.GetServerName()}, {"tls.verify_name", t.GetVerifyName()}} {
		if n.name != "" && !IsHost(n.name) {
			s.Add(n.at, "is %q; it must be a DNS name or an IP address, without a port", n.name)
		}
	}
	if _, err := netip.ParseAddr(t.GetServerName()); err == nil {
		s.Warn(warnServerName, "tls.server_name", "is an IP address: it is verified, but never sent as SNI (RFC 6066)")
	}
	if enum(t.GetVerification(), adminv1.Verification_name) {
		switch t.GetVerification() {
		case adminv1.Verification_VERIFICATION_REPORT_ONLY:
			o.Verification = certs.VerifyReportOnly
			s.warnSecurity(warnVerification, "tls.verification", "is VERIFICATION_REPORT_ONLY: an upstream whose certificate fails verification is accepted")
			log := s.job.log.With("upstream", u.msg.GetName())
			var logged sync.Map // the reasons logged so far; logging every handshake would flood the log
			o.Report = func(err *certs.VerifyError) {
				level := hclog.Warn
				if _, known := logged.LoadOrStore(err.Reason, true); known {
					level = hclog.Debug
				}
				log.Log(level, "certificate would have been rejected", "reason", string(err.Reason), "error", err.Error())
			}
		case adminv1.Verification_VERIFICATION_INSECURE_SKIP:
			o.Verification = certs.VerifyInsecureSkip
			s.warnSecurity(warnVerification, "tls.verification", "is VERIFICATION_INSECURE_SKIP: any server that answers at the address is accepted as the upstream")
		}
	}
	if c := u.uses.certificate; c != nil {
		s.warnUse("tls.certificate", t.GetCertificate(), c, certs.AsClient)
	}
	return o
}

// warnOfIssuer warns the writer of u if its client certificate leads to none of the CAs
// that it trusts. The warning is not part of the notes, because it needs a signature
// check. With 10,000 upstreams, these checks took half of the start time.
func (s upstreamScope) warnOfIssuer(u *liveUpstream) {
	c, t := u.uses.certificate, u.msg.GetTls()
	if s.written() && c != nil && len(t.GetTrustBundles()) > 0 && !c.LeadsTo(u.uses.trust...) {
		s.Warn(warnClientCertificate, "tls.certificate", "certificate %q leads to no CA of trust_bundles: an upstream that trusts only those will refuse it", t.GetCertificate())
	}
}

// lacksTrust reports that the trust bundles of TLS settings do not exist, are down, or
// must still be gathered. Each is reported elsewhere, and the snapshot is not used or the
// upstream is down. Package certs would take settings without trust bundles to mean the
// system's roots, and read them for each upstream while the writer's lock is held.
func lacksTrust(o *certs.ClientOptions) bool {
	return len(o.Trust) == 0 && o.Verification != certs.VerifyInsecureSkip
}

// clients returns the TLS clients of one endpoint. It reuses clients of before with
// equal settings.
func (s upstreamScope) clients(at invalid.Path, o certs.ClientOptions, host string, protocol backs.Protocol, before endpointClients) (c endpointClients) {
	if o.ServerName == "" && !o.FromHost {
		o.ServerName = host
	}
	named := o.VerifyName != "" || o.ServerName != "" || o.FromHost || len(o.SubjectAltNames) > 0
	if !named && o.Verification != certs.VerifyInsecureSkip {
		s.Add("tls.server_name", "must be set, because %s has no host name to verify", at)
		return c
	}
	if s.Len() > 0 || lacksTrust(&o) {
		return c
	}
	if protocol == backs.HTTP2 && len(o.NextProtos) > 0 && !slices.Contains(o.NextProtos, "h2") {
		s.Add("tls.alpn", "must offer h2, because http.protocol is HTTP_PROTOCOL_2")
		return c
	}
	c, err := newClients(o, host, protocol, before)
	if err != nil {
		s.addFaults("tls", err)
	}
	return c
}
