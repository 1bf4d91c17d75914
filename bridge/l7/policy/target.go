package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// ErrMethod reports a method that a gateway does not serve.
var ErrMethod = errors.New("method not allowed")

// A Target is the target of a request, in the normal form that is both matched
// and forwarded.
type Target struct {
	Host      string // without a port; "" if an HTTP/1.0 client named none
	Authority string // Host, with the port that was given
	Path      string // "*" only with OPTIONS
	Query     string // as received, with its "?"; may be ""
}

// ParseTarget returns the target of a request, or why the request must not be
// served: ErrMethod, or an error that means 400. It rejects a target that the
// upstream might read differently from the router.
func ParseTarget(r *message.Request) (Target, error) {
	if r.Method == "CONNECT" && r.Protocol == "" {
		return Target{}, ErrMethod // the gateway is not a forward proxy
	}
	if !message.IsToken(r.Method) {
		return Target{}, errors.New("the method is not a token")
	}
	var t Target
	var err error
	if !unnamed(r) {
		if t.Host, t.Authority, err = normalAuthority(r.Authority); err != nil {
			return Target{}, err
		}
	}
	// HTTP/2 may carry a Host beside :authority (RFC 9113, section 8.3.1).
	for i := range r.Fields {
		if !message.EqualFold(r.Fields[i].Name, "Host") {
			continue
		}
		if _, other, err := normalAuthority(r.Fields[i].Value); err != nil || other != t.Authority {
			return Target{}, errors.New("the target's authority and Host differ")
		}
	}
	path, query, hasQuery := strings.Cut(r.Target, "?")
	if hasQuery {
		t.Query = r.Target[len(path):]
		for i := range len(query) {
			if c := query[i]; c <= ' ' || c == 0x7f || c == '#' {
				return Target{}, errors.New("the query has an invalid character")
			}
		}
	}
	if t.Path, err = route.NormalizePath(path); err != nil {
		return Target{}, err
	}
	if t.Path == "*" && (r.Method != "OPTIONS" || hasQuery) {
		return Target{}, errors.New(`"*" is a target of OPTIONS alone`)
	}
	return t, nil
}

// unnamed reports whether a request names no host, as HTTP/1.0 allows. Health
// checkers send such requests.
func unnamed(r *message.Request) bool { return r.Authority == "" && r.Major == 1 && r.Minor == 0 }

// WithPath returns the target in its request-line form, with another path. given is
// the target as received: WithPath returns it if nothing differs.
func (t *Target) WithPath(path, given string) string {
	if len(given) == len(path)+len(t.Query) && given[:len(path)] == path {
		return given
	}
	return path + t.Query
}

// SplitAbsolute takes the authority out of a target in absolute form (RFC
// 9112, section 3.2.2), where Host must be the same.
func SplitAbsolute(given, host string) (authority, rest string, err error) {
	if given == "" || given[0] == '/' || given == "*" {
		return host, given, nil
	}
	scheme, rest, ok := strings.Cut(given, "://")
	if !ok || !message.EqualFold(scheme, "http") && !message.EqualFold(scheme, "https") {
		return "", "", errors.New("the target is neither a path nor an http address")
	}
	authority = rest
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, rest = rest[:i], rest[i:]
	} else {
		rest = ""
	}
	if !strings.HasPrefix(rest, "/") {
		rest = "/" + rest
	}
	_, inTarget, err1 := normalAuthority(authority)
	_, inHost, err2 := normalAuthority(host)
	if err := errors.Join(err1, err2); err != nil {
		return "", "", err
	}
	if inTarget != inHost {
		return "", "", errors.New("the target's authority and Host differ")
	}
	return authority, rest, nil
}

// normalAuthority returns an authority's host, and the host with its port.
func normalAuthority(authority string) (host, normal string, err error) {
	host, err = route.NormalizeHost(authority)
	if err != nil {
		return "", "", fmt.Errorf("authority: %w", err)
	}
	// NormalizeHost has checked that a port follows the last colon outside of
	// brackets.
	i := strings.LastIndexByte(authority, ':')
	switch {
	case i <= strings.LastIndexByte(authority, ']') || i+1 == len(authority):
		return host, host, nil
	case authority[:i] == host:
		return host, authority, nil
	}
	return host, host + authority[i:], nil
}
