package route

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// NormalizePath returns the normal form of a request's path, given as received
// without its query:
//
//   - escapes of unreserved characters (RFC 3986, section 2.3) are undone, all
//     others stay, with upper-case digits: %2F and %5C are not separators, and
//     %25 is never undone, so nothing is decoded twice;
//   - bytes that are not allowed in a path are escaped;
//   - consecutive slashes become one;
//   - dot segments are resolved.
//
// It rejects (ErrUnsafe) paths that servers are known to interpret differently:
// paths with a raw backslash, with raw or escaped control characters, with
// broken escapes, with segments that climb above the root, or with dot segments
// disguised by an escaped separator ("..%2F") or a parameter ("..;x"). "*", the
// target of OPTIONS, is unchanged. The function is idempotent.
func NormalizePath(escapedPath string) (string, error) {
	if escapedPath == "*" {
		return escapedPath, nil
	}
	if escapedPath == "" || escapedPath[0] != '/' {
		return "", unsafe("path", escapedPath, "it does not begin with a slash")
	}
	if isPlain(escapedPath) {
		return escapedPath, nil
	}
	decoded, problem := normalizeEscapes(escapedPath)
	if problem != "" {
		return "", unsafe("path", escapedPath, problem)
	}
	path, problem := resolveSegments(decoded)
	if problem != "" {
		return "", unsafe("path", escapedPath, problem)
	}
	return path, nil
}

// isPlain reports, without allocating, that a path is certainly in normal form.
// Nearly all paths are.
func isPlain(path string) bool {
	for i := 0; i < len(path); i++ {
		c := path[i]
		if !isPathByte(c) {
			return false
		}
		if (c == '/' || c == '.') && i > 0 && path[i-1] == '/' {
			return false
		}
	}
	return true
}

// isPathByte reports whether c may appear unescaped in a path: pchar of RFC
// 3986, section 3.3, and the slash.
func isPathByte(c byte) bool { return pathBytes[c] }

// pathBytes is filled once and never changes.
var pathBytes = func() (t [256]bool) {
	for i := range t {
		t[i] = isAlphanumeric(byte(i)) || strings.IndexByte("-._~!$&'()*+,;=:@/", byte(i)) >= 0
	}
	return t
}()

func isUnreserved(c byte) bool {
	return isAlphanumeric(c) || c == '-' || c == '.' || c == '_' || c == '~'
}

const upperHex = "0123456789ABCDEF"

// normalizeEscapes rewrites every byte to its single spelling.
func normalizeEscapes(path string) (out, problem string) {
	b := make([]byte, 0, len(path)+8)
	for i := 0; i < len(path); i++ {
		c, escaped := path[i], false
		switch {
		case c == '%':
			if i+2 >= len(path) {
				return "", "it has a broken escape"
			}
			hi, lo := unhex(path[i+1]), unhex(path[i+2])
			if hi < 0 || lo < 0 {
				return "", "it has a broken escape"
			}
			c, escaped = byte(hi<<4|lo), true
			i += 2
		case c == '\\':
			return "", "it has a backslash"
		case c == '?' || c == '#':
			return "", "it has a query or a fragment"
		}
		switch {
		case c < ' ' || c == 0x7f:
			return "", "it has a control character"
		case escaped && isUnreserved(c), !escaped && isPathByte(c):
			b = append(b, c)
		default:
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b), ""
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// resolveSegments merges slashes and resolves dot segments. A final dot
// segment leaves the slash: "/a/b/.." becomes "/a/".
func resolveSegments(path string) (out, problem string) {
	b := make([]byte, 1, len(path))
	b[0] = '/' // b always ends in a slash here
	for begin := 1; ; {
		end := begin
		for end < len(path) && path[end] != '/' { // segments of a few bytes are the costly ones
			end++
		}
		segment, more := path[begin:end], end < len(path)
		switch {
		case segment == "" || segment == ".":
		case segment == "..":
			if len(b) == 1 {
				return "", "it climbs above the root"
			}
			for b = b[:len(b)-1]; b[len(b)-1] != '/'; {
				b = b[:len(b)-1]
			}
		case hidesDots(segment):
			return "", "it has an encoded dot segment"
		default:
			b = append(b, segment...)
			if more {
				b = append(b, '/')
			}
		}
		if !more {
			return string(b), ""
		}
		begin = end + 1
	}
}

// hidesDots reports whether segment contains a dot segment for a server that
// decodes separators, or strips parameters, before it resolves dot segments.
func hidesDots(segment string) bool {
	if segment[0] != '.' && !strings.Contains(segment, "%2F.") && !strings.Contains(segment, "%5C.") {
		return false
	}
	for piece := range strings.SplitSeq(strings.ReplaceAll(segment, "%5C", "%2F"), "%2F") {
		piece, _, _ = strings.Cut(piece, ";")
		if piece == "." || piece == ".." {
			return true
		}
	}
	return false
}

// MaxRegex is the longest regular expression allowed, in bytes.
const MaxRegex = 1024

// maxRegexProgram bounds the compiled size of an expression. Repetitions
// multiply: 1024 bytes can produce a program of millions of instructions, and
// matching takes time in proportion.
const maxRegexProgram = 10000

// CheckPath returns the fault of a path condition and the fix. Exact paths and
// prefixes must be in normal form, because no other form ever matches.
func CheckPath(p Path) error {
	switch p.Kind {
	case PathNone:
		if p.Value != "" {
			return errors.New("a value needs a kind: exact, prefix or regex")
		}
		return nil
	case PathRegex:
		_, err := compileRegex(p.Value)
		return err
	case PathExact, PathPrefix:
		if !strings.HasPrefix(p.Value, "/") {
			return fmt.Errorf("%s must begin with a slash", quote(p.Value))
		}
		normal, err := NormalizePath(p.Value)
		if err != nil {
			return err
		}
		if normal != p.Value {
			return fmt.Errorf("%s would never match, because requests are matched in normal form; write %s", quote(p.Value), quote(normal))
		}
		return nil
	}
	return fmt.Errorf("unknown kind %d", p.Kind)
}

// maxRegexPrograms bounds the compiled size of all expressions of a table,
// which are held in memory and may all have to be tried.
const maxRegexPrograms = 200_000

// A regex is an expression with its cost and the grams that a path must
// contain.
type regex struct {
	*regexp.Regexp
	size  int      // instructions
	grams []uint32 // every match contains all these grams
}

// compileRegex compiles an expression for a whole path.
func compileRegex(expr string) (*regex, error) {
	parsed, err := parseRegex(expr)
	if err != nil {
		return nil, err
	}
	// The expression is anchored in its parsed form: as text it could close or
	// quote the enclosing group.
	return boundedRegex(`\A(?:` + parsed.String() + `)\z`)
}

func parseRegex(expr string) (*syntax.Regexp, error) {
	switch {
	case expr == "":
		return nil, errors.New("the regular expression is empty")
	case len(expr) > MaxRegex:
		return nil, fmt.Errorf("the regular expression has %d bytes; at most %d are allowed", len(expr), MaxRegex)
	}
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("not an RE2 regular expression: %w", err)
	}
	return parsed, nil
}

// boundedRegex compiles an expression, unless the result is too large.
func boundedRegex(expr string) (*regex, error) {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("not an RE2 regular expression: %w", err)
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, fmt.Errorf("not an RE2 regular expression: %w", err)
	}
	if len(prog.Inst) > maxRegexProgram {
		return nil, fmt.Errorf("the regular expression is too large with its repetitions written out (%d instructions, at most %d); repeat less", len(prog.Inst), maxRegexProgram)
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, fmt.Errorf("not an RE2 regular expression: %w", err)
	}
	return &regex{re, len(prog.Inst), requiredGrams(parsed)}, nil
}
