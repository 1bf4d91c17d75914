package message

import "strings"

// Byte classes: each bit names a place in which the byte is allowed.
const (
	tokenByte  = 1 << iota // RFC 9110, section 5.6.2
	targetByte             // a request target: visible ASCII but "#"
	hostByte               // a host name: RFC 3986, section 3.2.2, without the comma
	plainByte              // a letter, a digit or a hyphen
	lowerByte              // a tokenByte that is not an upper-case letter
)

// classes is filled once and never changes.
var classes = func() (t [256]uint8) {
	for i := range t {
		c := byte(i)
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if alphanumeric || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			t[i] |= tokenByte
			if c < 'A' || c > 'Z' {
				t[i] |= lowerByte
			}
		}
		if '!' <= c && c <= '~' && c != '#' {
			t[i] |= targetByte
		}
		if alphanumeric || strings.IndexByte("-._~%!$&'()*+;=", c) >= 0 {
			t[i] |= hostByte
		}
		if alphanumeric || c == '-' {
			t[i] |= plainByte
		}
	}
	return t
}()

// IsTokenByte reports whether c may stand in a token, such as a method or the
// name of a field (RFC 9110, section 5.6.2).
func IsTokenByte(c byte) bool { return classes[c]&tokenByte != 0 }

// IsToken reports whether s is a token.
func IsToken(s string) bool { return s != "" && all(s, tokenByte) }

// IsLowerToken reports whether s is a token without upper-case letters, as the names of
// fields are in HTTP/2.
func IsLowerToken(s string) bool { return s != "" && all(s, lowerByte) }

// IsPlainName reports whether s has only letters, digits and hyphens, as the names
// of registered fields do.
func IsPlainName(s string) bool { return all(s, plainByte) }

// IsTarget reports whether s begins with a slash and has only the characters of
// a request target in origin form. Browsers leave some characters unescaped
// that RFC 3986 would escape, such as brackets and bars in a query. They have
// only one reading, so they are allowed. Control characters, blanks, "#" and
// non-ASCII bytes are not.
func IsTarget(s string) bool { return s != "" && s[0] == '/' && all(s, targetByte) }

// IsAuthority reports whether s can be a host with an optional port (RFC 9110,
// section 7.2). It rejects a user, a path, and a second host after a comma.
// Whether the host name is valid is checked where it is looked up.
func IsAuthority(s string) bool {
	i := 0
	if s != "" && s[0] == '[' {
		if i = strings.IndexByte(s, ']') + 1; i < len("[::]") || strings.Trim(s[1:i-1], "0123456789abcdefABCDEF:.") != "" {
			return false
		}
	} else {
		for i < len(s) && classes[s[i]]&hostByte != 0 {
			i++
		}
	}
	if i == 0 || i == len(s) {
		return i > 0
	}
	if s[i] != ':' || len(s)-i > len(":65535") {
		return false
	}
	for _, c := range []byte(s[i+1:]) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func all(s string, class uint8) bool {
	// A loop of eight bytes is twice as fast. Few names are long, but a peer chooses them.
	for ; len(s) >= 8; s = s[8:] {
		if classes[s[0]]&classes[s[1]]&classes[s[2]]&classes[s[3]]&
			classes[s[4]]&classes[s[5]]&classes[s[6]]&classes[s[7]]&class == 0 {
			return false
		}
	}
	for i := 0; i < len(s); i++ {
		if classes[s[i]]&class == 0 {
			return false
		}
	}
	return true
}

// IsValue reports whether s can be a field value: it has no control character
// except tab, and no blank at either end (RFC 9110, section 5.5).
func IsValue(s string) bool {
	if s == "" {
		return true
	}
	return ControlByte(s) < 0 && !isBlank(s[0]) && !isBlank(s[len(s)-1])
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// ControlByte returns the index of the first control character in s, or -1. Tab
// does not count. Every byte of every head passes through here, so it checks
// eight bytes at a time.
func ControlByte(s string) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(s); i += 8 {
		p := s[i : i+8]
		x := uint64(p[0]) | uint64(p[1])<<8 | uint64(p[2])<<16 | uint64(p[3])<<24 |
			uint64(p[4])<<32 | uint64(p[5])<<40 | uint64(p[6])<<48 | uint64(p[7])<<56
		del := x ^ ones*0x7f
		// A high bit is set for a byte below 0x20 and for 0x7f. A carry may
		// also set it for the byte after such a byte, but in no other case.
		if ((x-ones*0x20)&^x|(del-ones)&^del)&highs != 0 {
			for j := range 8 {
				if isControl(p[j]) {
					return i + j
				}
			}
		}
	}
	for ; i < len(s); i++ {
		if isControl(s[i]) {
			return i
		}
	}
	return -1
}

func isControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

// EqualFold reports whether a and b are equal, ignoring the case of ASCII
// letters. Unlike strings.EqualFold it folds no other characters.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if a[i] != b[i] && lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}
