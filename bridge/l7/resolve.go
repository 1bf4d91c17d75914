package l7

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// A Question is the head of a hypothetical request.
type Question struct {
	Method, Host, Target string              // Target as on the wire: "/path?query"
	SNI                  string              // the SNI of the connection; "" if it sends none
	Header               map[string][]string // values by name
	Client               *route.Client       // nil: the client has no verified certificate
}

// A Resolution is the outcome of a hypothetical request.
type Resolution struct {
	Host, Path   string  // in the form that routes match
	UpstreamPath string  // the forwarded path; "" if the request is not forwarded
	Scheme       string  // the client's scheme
	Action       *Action // nil: the request is refused
	Code         int     // the status code of a refusal: 400, 404, 405 or 421
	Err          error   // why the request is refused with 400 or 405
}

// Resolve returns the outcome of a request. It applies the same rules in the same
// order as for a real request. If the table trusts any proxy, Resolve treats
// X-Forwarded-Proto as sent by one. Nothing is sent or counted.
func (t *Table) Resolve(q Question) Resolution {
	r := message.Request{Method: q.Method, Major: 1, Minor: 1}
	for name, values := range q.Header {
		for _, v := range values {
			r.Fields.Add(name, v)
		}
	}
	at, err := t.resolve(&r, q)
	if err != nil {
		code := policy.BadRequest.Code
		if errors.Is(err, policy.ErrMethod) {
			code = policy.MethodNotAllowed.Code
		}
		return Resolution{Code: code, Err: err}
	}
	out := Resolution{Host: at.Host, Path: at.Path, Scheme: "http"}
	if t.TLS != nil {
		out.Scheme = "https"
	}
	if t.TrustedProxies != nil {
		out.Scheme = policy.ForwardedScheme(r.Fields, out.Scheme)
	}
	if t.misdirects(q.SNI, at.Host) {
		out.Code = policy.Misdirected.Code
		return out
	}
	spelling := t.spelling()
	policy.CleanRequest(&r, &spelling)
	m := matcher{fields: &r.Fields, scheme: out.Scheme}
	out.Action = t.action(route.Request{Host: at.Host, Path: at.Path, Method: r.Method, Scheme: out.Scheme, Header: m.values, Client: q.Client})
	switch a := out.Action; {
	case a == nil || a.Redirect == nil && a.Respond == nil && a.Forward == nil:
		out.Action, out.Code = nil, policy.NotFound.Code
	case a.Forward != nil && a.Redirect == nil && a.Respond == nil:
		if out.UpstreamPath, err = a.Forward.Rewrite.Apply(at.Path); err != nil {
			out.Action, out.Code, out.Err = nil, policy.BadRequest.Code, fmt.Errorf("rewritten by route %s: %w", a.Route, err)
		}
	}
	return out
}

// resolve fills in r with the request that q describes.
func (t *Table) resolve(r *message.Request, q Question) (policy.Target, error) {
	if q.Method == "CONNECT" {
		return policy.Target{}, policy.ErrMethod
	}
	lengths := 0
	for given := range r.Fields.Values("Content-Length") {
		lengths++
		if _, err := strconv.ParseUint(given, 10, 63); err != nil {
			return policy.Target{}, errors.New("the Content-Length is not a number")
		}
	}
	switch {
	case lengths > 1:
		return policy.Target{}, errors.New("the request has more than one Content-Length")
	case lengths > 0 && r.Fields.Has("Transfer-Encoding"):
		return policy.Target{}, errors.New("the request has both Content-Length and Transfer-Encoding")
	}
	var err error
	if r.Authority, r.Target, err = policy.SplitAbsolute(q.Target, q.Host); err != nil {
		return policy.Target{}, err
	}
	return policy.ParseTarget(r)
}

// A matcher gives conditions the values of header fields, without allocating in
// steady state.
type matcher struct {
	fields *message.Fields
	scheme string
	found  []string
}

// values returns the values of the fields with a name. They are valid until
// the next call.
func (m *matcher) values(name string) []string {
	m.found = m.found[:0]
	if message.EqualFold(name, "X-Forwarded-Proto") {
		// The gateway has removed the client's value and adds its own later.
		// Conditions apply to the gateway's value.
		m.found = append(m.found, m.scheme)
		return m.found
	}
	for i := range *m.fields {
		if message.EqualFold((*m.fields)[i].Name, name) {
			m.found = append(m.found, (*m.fields)[i].Value)
		}
	}
	return m.found
}
