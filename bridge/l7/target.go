package l7

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// errMethod reports a method that a gateway does not serve.
var errMethod = errors.New("method not allowed")

// A head is a request's head as it came, whichever protocol brought it.
type head struct {
	method    string
	target    string // the request target, with its query (RFC 9112, section 3.2)
	authority string // Host or :authority
	header    fields
	encoded   bool  // a Transfer-Encoding was given
	length    int64 // of the body as it is framed; -1: not known
}

// A target is what a request asks for, in the form that is both matched and
// forwarded.
type target struct {
	host      string // normal, without a port
	authority string // host, with the port that was given
	path      string // normal; "*" for OPTIONS alone
	query     string // as given, with its "?"; "" if there is none
}

// parseTarget returns the target of a request, or why it must not be served:
// errMethod, or an error that means 400. It refuses whatever the upstream
// might read as another request than was routed.
func parseTarget(h head) (target, error) {
	if h.method == "CONNECT" {
		return target{}, errMethod // this is no forward proxy
	}
	if h.method == "" || strings.ContainsFunc(h.method, func(c rune) bool { return !isTokenByte(c) }) {
		return target{}, errors.New("its method is no token")
	}
	if err := checkLength(h); err != nil {
		return target{}, err
	}
	authority, rest, err := splitAbsolute(h)
	if err != nil {
		return target{}, err
	}
	var t target
	if t.host, t.authority, err = normalAuthority(authority); err != nil {
		return target{}, err
	}
	// HTTP/2 may carry a Host beside :authority (RFC 9113, section 8.3.1).
	for _, host := range h.header["Host"] {
		if _, other, err := normalAuthority(host); err != nil || other != t.authority {
			return target{}, errors.New("the target's authority and Host differ")
		}
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	if hasQuery {
		t.query = "?" + query
		if i := strings.IndexFunc(query, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '#' }); i >= 0 {
			return target{}, errors.New("the query has a character that none has")
		}
	}
	if t.path, err = route.NormalizePath(path); err != nil {
		return target{}, err
	}
	if t.path == "*" && (h.method != "OPTIONS" || hasQuery) {
		return target{}, errors.New(`"*" is a target of OPTIONS alone`)
	}
	return t, nil
}

// checkLength refuses a body whose length is said in two ways (RFC 9112,
// section 6.1; RFC 9113, section 8.1.1).
func checkLength(h head) error {
	lengths, ok := h.header["Content-Length"]
	switch {
	case !ok:
		return nil
	case h.encoded:
		return errors.New("it has both Content-Length and Transfer-Encoding")
	case len(lengths) != 1:
		return errors.New("it has more than one Content-Length")
	}
	if n, err := strconv.ParseUint(lengths[0], 10, 63); err != nil || int64(n) != h.length {
		return errors.New("its Content-Length is not that of its body")
	}
	return nil
}

// splitAbsolute takes the authority out of a target in absolute form (RFC
// 9112, section 3.2.2), where Host must be the same.
func splitAbsolute(h head) (authority, rest string, err error) {
	if h.target == "" || h.target[0] == '/' || h.target == "*" {
		return h.authority, h.target, nil
	}
	scheme, rest, ok := strings.Cut(h.target, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
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
	_, inHost, err2 := normalAuthority(h.authority)
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
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') && i+1 < len(authority) {
		return host, host + authority[i:], nil
	}
	return host, host, nil
}
