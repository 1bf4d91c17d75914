package route

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ErrUnsafe reports a host or path without a form that all servers interpret
// alike. Reject such a request (400).
var ErrUnsafe = errors.New("cannot be normalized safely")

// maxHost is the longest name that DNS can carry (RFC 1035, section 2.3.4).
const maxHost = 253

// NormalizeHost returns the normal form of a host from a Host header,
// :authority or SNI: lower case, without port or trailing dot. An IPv6 address
// keeps its brackets and gets its canonical text. Names must be ASCII; an
// internationalized name must be in its xn-- form, which is unchanged. The
// function is idempotent.
func NormalizeHost(host string) (string, error) {
	if strings.HasPrefix(host, "[") {
		return normalizeIPv6(host)
	}
	name, port, hasPort := strings.Cut(host, ":")
	if hasPort && !validPort(port) {
		return "", unsafe("host", host, "its port is not a number")
	}
	name = strings.TrimSuffix(name, ".")
	if problem := checkName(name); problem != "" {
		return "", unsafe("host", host, problem)
	}
	return strings.ToLower(name), nil
}

func normalizeIPv6(host string) (string, error) {
	literal, rest, ok := strings.Cut(host[1:], "]")
	if !ok {
		return "", unsafe("host", host, "its bracket is not closed")
	}
	if rest != "" && (rest[0] != ':' || !validPort(rest[1:])) {
		return "", unsafe("host", host, "its port is not a number")
	}
	addr, err := netip.ParseAddr(literal)
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return "", unsafe("host", host, "the part in brackets is not an IPv6 address")
	}
	return "[" + addr.String() + "]", nil
}

// checkName returns the fault of a host name or IPv4 address. RFC 952 forbids the
// underscore in host names, but many names in use contain it.
func checkName(name string) string {
	if name == "" {
		return "it is empty"
	}
	if len(name) > maxHost {
		return "it is longer than 253 bytes"
	}
	label := 0
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '.':
			if label == 0 {
				return "it has an empty label"
			}
			label = 0
			continue
		case c >= 0x80:
			return "it is not ASCII (an internationalized name is written xn--…)"
		case !isAlphanumeric(c) && c != '-' && c != '_':
			return "it has a character that is not allowed in a host"
		}
		if label++; label > 63 {
			return "it has a label longer than 63 bytes"
		}
	}
	if label == 0 {
		return "it has an empty label"
	}
	return ""
}

// validPort allows the empty port of "host:", as RFC 3986 does.
func validPort(port string) bool {
	if len(port) > 5 {
		return false
	}
	n := 0
	for i := 0; i < len(port); i++ {
		if port[i] < '0' || port[i] > '9' {
			return false
		}
		n = n*10 + int(port[i]-'0')
	}
	return n <= 65535
}

// CheckHost returns the fault of a host pattern and the fix.
func CheckHost(pattern string) error {
	_, err := normalizePattern(pattern)
	return err
}

// normalizePattern is NormalizeHost for a rule's host. The first label may be
// "*", and a port is not allowed.
func normalizePattern(pattern string) (string, error) {
	name, wildcard := strings.CutPrefix(pattern, "*.")
	switch {
	case pattern == "":
		return "", errors.New("is empty; leave hosts out to match every host")
	case pattern == "*":
		return "", errors.New(`"*" is not a host; leave hosts out to match every host`)
	case strings.Contains(name, "*"):
		return "", fmt.Errorf(`%s: "*" can only stand for the whole first label, as in "*.example.com"`, quote(pattern))
	}
	host, err := NormalizeHost(name)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(host, "[") {
		if wildcard || !strings.HasSuffix(name, "]") {
			return "", fmt.Errorf("%s: must be a bare IPv6 address in brackets, without a port", quote(pattern))
		}
		return host, nil
	}
	if strings.Contains(name, ":") {
		return "", fmt.Errorf("%s: must have no port; requests are matched without their ports", quote(pattern))
	}
	if wildcard {
		return "*." + host, nil
	}
	return host, nil
}

// unsafe returns an ErrUnsafe with its cause. The text is bounded and escaped,
// because a client wrote it.
func unsafe(kind, text, cause string) error {
	return fmt.Errorf("%s %s %w: %s", kind, quote(text), ErrUnsafe, cause)
}

// quote formats untrusted text in at most about 100 characters.
func quote(s string) string {
	if len(s) > 100 {
		return fmt.Sprintf("%q…", s[:100])
	}
	return fmt.Sprintf("%q", s)
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isAlphanumeric(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}
