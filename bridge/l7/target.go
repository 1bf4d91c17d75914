package l7

import (
	"errors"
	"fmt"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// errMethod reports a method that a gateway does not serve.
var errMethod = errors.New("method not allowed")

// A target is what a request asks for, in the form that is both matched and
// forwarded.
type target struct {
	host      string // normal, without a port; "" if an HTTP/1.0 client named none
	authority string // host, with the port that was given
	path      string // normal; "*" for OPTIONS alone
	query     string // as given, with its "?"; "" if there is none
}

// parseTarget returns the target of a request, or why it must not be served:
// errMethod, or an error that means 400. It refuses whatever the upstream
// might read as another request than was routed.
func parseTarget(r *message.Request) (target, error) {
	if r.Method == "CONNECT" && r.Protocol == "" {
		return target{}, errMethod // this is no forward proxy
	}
	if !message.IsToken(r.Method) {
		return target{}, errors.New("its method is no token")
	}
	var t target
	var err error
	if !unnamed(r) {
		if t.host, t.authority, err = normalAuthority(r.Authority); err != nil {
			return target{}, err
		}
	}
	// HTTP/2 may carry a Host beside :authority (RFC 9113, section 8.3.1).
	for i := range r.Fields {
		if !message.EqualFold(r.Fields[i].Name, "Host") {
			continue
		}
		if _, other, err := normalAuthority(r.Fields[i].Value); err != nil || other != t.authority {
			return target{}, errors.New("the target's authority and Host differ")
		}
	}
	path, query, hasQuery := strings.Cut(r.Target, "?")
	if hasQuery {
		t.query = r.Target[len(path):]
		for i := range len(query) {
			if c := query[i]; c <= ' ' || c == 0x7f || c == '#' {
				return target{}, errors.New("the query has a character that none has")
			}
		}
	}
	if t.path, err = route.NormalizePath(path); err != nil {
		return target{}, err
	}
	if t.path == "*" && (r.Method != "OPTIONS" || hasQuery) {
		return target{}, errors.New(`"*" is a target of OPTIONS alone`)
	}
	return t, nil
}

// unnamed reports whether a request names no host, as HTTP/1.0 allows. Health
// checkers send such requests.
func unnamed(r *message.Request) bool { return r.Authority == "" && r.Major == 1 && r.Minor == 0 }

// request returns the target with another path as a request line has it. given is
// the target as it came, which it most often is again.
func (t *target) request(path, given string) string {
	if len(given) == len(path)+len(t.query) && given[:len(path)] == path {
		return given
	}
	return path + t.query
}

// splitAbsolute takes the authority out of a target in absolute form (RFC
// 9112, section 3.2.2), where Host must be the same.
func splitAbsolute(given, host string) (authority, rest string, err error) {
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
	// NormalizeHost has seen to it that what follows the last colon outside
	// of brackets is a port.
	i := strings.LastIndexByte(authority, ':')
	switch {
	case i <= strings.LastIndexByte(authority, ']') || i+1 == len(authority):
		return host, host, nil
	case authority[:i] == host:
		return host, authority, nil
	}
	return host, host + authority[i:], nil
}
