package l7

import (
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// plan prepares the request for the upstream, and returns how to forward it. If the
// request cannot be forwarded, plan answers it.
func (q *request) plan() (plan exchange.Plan, ok bool) {
	f, to := &q.Facts, q.action.Forward
	path, err := to.Rewrite.Apply(f.Target.Path)
	if err != nil {
		q.server.log.Debug("request refused", "client", f.Client, "route", q.action.Route, "error", "rewritten: "+policy.Printable(err))
		q.Answer(policy.BadRequest)
		return plan, false
	}
	plan = exchange.Plan{Timeout: to.Timeout, TotalTimeout: to.TotalTimeout, Retry: to.Retry}
	if q.pools = to.Backs.Pick(); q.pools == nil {
		return plan, true
	}
	u := q.pools.Upstream()
	if f.Target.Host == "" && u.FromHost() {
		q.Answer(policy.BadRequest) // there is no server name to request from the upstream
		return plan, false
	}
	f.Upstream = u.Name()
	hash := u.Hash()
	plan.Upstream, plan.Hash = q, f.HashKey(hash)
	if hash.Header != "" {
		q.spelling.RemoveRespelled(&f.Request.Fields, hash.Header)
	}
	q.prepareRequest()
	f.Request.Target = f.Target.WithPath(path, f.Request.Target)
	return plan, true
}

// prepareRequest prepares the header for the upstream.
func (q *request) prepareRequest() {
	f, t := &q.Facts, q.table
	f.SetForwarding(t.Forwarding)
	f.SetCertificate(t.ClientCertificate)
	f.SetRequestID(t.RequestIDField)
	if t.MakeTrace {
		policy.BeginTrace(&f.Request.Fields, &q.server.entropy)
	}
	rules := &q.action.RequestHeaders
	rules.ApplyRequest(f)
	protected := &q.Rules.Protected
	*protected = policy.Protected{
		Rules: rules, RequestIDField: t.RequestIDField, HashField: q.pools.Upstream().Hash().Header,
		Traces: t.MakeTrace, Spelling: &q.spelling,
	}
	protected.CleanAnnouncement(f.Request)
}

// Upstream, SharesUpgrades and Connect implement exchange.Upstream with the
// request's pools.
func (q *request) Upstream() *upstream.Upstream { return q.pools.Upstream() }
func (q *request) SharesUpgrades() bool         { return q.pools.SharesUpgrades() }

func (q *request) Connect(e *upstream.Endpoint, n exchange.Need, given *exchange.BackInfo) (message.Back, error) {
	f, r := &q.Facts, q.Facts.Request
	q.conn.latest.noteEndpoint(e)
	r.Scheme, r.Authority = q.pools.Address(e, f.Target.Authority)
	to := &q.need
	to.Host, to.Client, to.Turn = strings.Trim(f.Target.Host, "[]"), &q.conn.upstreamClient, n.Turn
	to.Upgrade, to.HasBody, to.Fresh, to.Avoid = r.Upgrade, r.HasBody(), n.Fresh, n.Avoid
	to.Login, to.Context, to.Splices = q.login(e), n.Context, q.server.splices
	return q.pools.Get(e, to, (*backs.BackInfo)(given))
}
