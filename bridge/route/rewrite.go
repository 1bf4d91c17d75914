package route

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A Rewrite turns the matched path into the path for the upstream. It is
// immutable. A nil Rewrite changes nothing.
type Rewrite struct {
	kind rewriteKind
	from string // prefix: the replaced prefix, without a trailing slash
	to   string // prefix: the replacement, without a trailing slash; path: the path
	bare string // prefix: the result for a path that equals from

	regex *regexp.Regexp
	parts []substitute
}

type rewriteKind int

const (
	rewritePrefix rewriteKind = iota
	rewriteRegex
	rewritePath
)

// RewritePrefix returns a Rewrite that replaces the matched prefix with
// another. Like matching, it replaces whole segments, and the rest keeps its
// slash: with "/v2" or "/v2/" and "/api" or "/api/", "/v2/x" becomes "/api/x";
// with "/" it becomes "/x".
func RewritePrefix(matched, prefix string) (*Rewrite, error) {
	if err := CheckPath(Path{PathPrefix, matched}); err != nil {
		return nil, err
	}
	if err := checkNormal(prefix); err != nil {
		return nil, err
	}
	return &Rewrite{kind: rewritePrefix, from: strings.TrimSuffix(matched, "/"), to: strings.TrimSuffix(prefix, "/"), bare: prefix}, nil
}

// RewritePath returns a Rewrite to a fixed path.
func RewritePath(path string) (*Rewrite, error) {
	if err := checkNormal(path); err != nil {
		return nil, err
	}
	return &Rewrite{kind: rewritePath, to: path}, nil
}

func checkNormal(path string) error {
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%s must begin with a slash", quote(path))
	}
	normal, err := NormalizePath(path)
	if err != nil {
		return err
	}
	if normal != path {
		return fmt.Errorf("%s is not in normal form; write %s", quote(path), quote(normal))
	}
	return nil
}

// Bounds on the cost of an expression for a request. Each match may scan the
// rest of the path, and a client can send long paths, so both the path and the
// number of matches are bounded.
const (
	maxRewritten = 8 << 10 // bytes of a path before and after the rewrite
	maxMatches   = 32
)

// RewriteRegex returns a Rewrite that replaces every match of an expression
// with a substitution. An error about the substitution is a
// *SubstitutionError; any other is about the expression.
func RewriteRegex(pattern, substitution string) (*Rewrite, error) {
	if _, err := parseRegex(pattern); err != nil {
		return nil, err
	}
	re, err := boundedRegex(pattern)
	if err != nil {
		return nil, err
	}
	parts, err := parseSubstitution(substitution, re.Regexp)
	if err != nil {
		return nil, &SubstitutionError{err}
	}
	return &Rewrite{kind: rewriteRegex, regex: re.Regexp, parts: parts}, nil
}

// A SubstitutionError describes the fault of a substitution.
type SubstitutionError struct{ Err error }

func (e *SubstitutionError) Error() string { return e.Err.Error() }

// Unwrap returns the fault.
func (e *SubstitutionError) Unwrap() error { return e.Err }

// A substitute is literal text or a reference to a group.
type substitute struct {
	text  string
	group int // group number; -1: literal text
}

// parseSubstitution parses a substitution: "$1", "${1}", "$name" and "${name}"
// are groups of re, "$$" is a dollar sign. As in regexp.Expand, a name without
// braces is as long as possible. Unlike in regexp.Expand, an unknown group is
// an error.
func parseSubstitution(s string, re *regexp.Regexp) ([]substitute, error) {
	if len(s) > MaxRegex {
		return nil, fmt.Errorf("the substitution has %d bytes; at most %d are allowed", len(s), MaxRegex)
	}
	var parts []substitute
	var text strings.Builder
	for s != "" {
		before, rest, dollar := strings.Cut(s, "$")
		text.WriteString(before)
		if s = rest; !dollar {
			break
		}
		if rest, ok := strings.CutPrefix(s, "$"); ok {
			text.WriteByte('$')
			s = rest
			continue
		}
		name, rest, err := cutGroup(s)
		if err != nil {
			return nil, err
		}
		group := groupOf(name, re)
		if group < 0 {
			return nil, fmt.Errorf("%s is not a group of the expression; write ${1} where a letter or digit follows, and $$ for a dollar sign", quote("$"+name))
		}
		if text.Len() > 0 {
			parts = append(parts, substitute{text.String(), -1})
			text.Reset()
		}
		parts = append(parts, substitute{"", group})
		s = rest
	}
	if text.Len() > 0 {
		parts = append(parts, substitute{text.String(), -1})
	}
	for _, p := range parts {
		if i := strings.IndexFunc(p.text, func(c rune) bool { return c < ' ' || c == 0x7f || c == '?' || c == '#' || c == '\\' }); i >= 0 {
			return nil, fmt.Errorf("the substitution has %q, which is not allowed in a path", p.text[i])
		}
	}
	return parts, nil
}

// cutGroup splits a group's name from the text after a dollar sign.
func cutGroup(s string) (name, rest string, err error) {
	if inner, ok := strings.CutPrefix(s, "{"); ok {
		if name, rest, ok = strings.Cut(inner, "}"); !ok {
			return "", "", errors.New(`the substitution has "${" without "}"`)
		}
		return name, rest, nil
	}
	n := 0
	for n < len(s) && (isAlphanumeric(s[n]) || s[n] == '_') {
		n++
	}
	if n == 0 {
		return "", "", errors.New(`the substitution has a "$" without a group name; write "$$" for a dollar sign`)
	}
	return s[:n], s[n:], nil
}

// groupOf returns the number of a group, or -1.
func groupOf(name string, re *regexp.Regexp) int {
	if n, err := strconv.ParseUint(name, 10, 16); err == nil {
		if int(n) > re.NumSubexp() {
			return -1
		}
		return int(n)
	}
	if name == "" {
		return -1
	}
	return re.SubexpIndex(name)
}

// Apply returns the path for the upstream, in normal form. It rejects
// (ErrUnsafe) a path whose result is invalid or too expensive to compute. The
// target "*" is unchanged. If nothing changes, it does not allocate.
func (w *Rewrite) Apply(path string) (string, error) {
	if w == nil || path == "*" {
		return path, nil
	}
	switch w.kind {
	case rewritePath:
		return w.to, nil
	case rewritePrefix:
		return w.applyPrefix(path)
	}
	return w.applyRegex(path)
}

func (w *Rewrite) applyPrefix(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, w.from)
	switch {
	case !ok || rest != "" && rest[0] != '/':
		// The prefix was not matched: the path would reach the upstream unchanged.
		return "", unsafe("path", path, "it does not begin as the rewrite expects")
	case rest == "":
		return w.bare, nil
	case w.from == w.to:
		return path, nil
	case w.to == "":
		return NormalizePath(rest)
	}
	return NormalizePath(w.to + rest)
}

func (w *Rewrite) applyRegex(path string) (string, error) {
	if len(path) > maxRewritten {
		return "", unsafe("path", path, "it is too long to be rewritten")
	}
	if !w.regex.MatchString(path) {
		return path, nil
	}
	matches := w.regex.FindAllStringSubmatchIndex(path, maxMatches+1)
	if len(matches) > maxMatches {
		return "", unsafe("path", path, "it has too many matches to be rewritten")
	}
	b, done := make([]byte, 0, len(path)+64), 0
	for _, m := range matches {
		b = append(b, path[done:m[0]]...)
		done = m[1]
		for _, p := range w.parts {
			text := p.text
			if p.group >= 0 && m[2*p.group] >= 0 { // otherwise the group is not part of the match
				text = path[m[2*p.group]:m[2*p.group+1]]
			}
			if b = append(b, text...); len(b) > maxRewritten {
				return "", unsafe("path", path, "the rewritten path is too long")
			}
		}
	}
	b = append(b, path[done:]...)
	if len(b) == 0 || b[0] != '/' { // "*" is another kind of target
		return "", unsafe("path", path, "the rewritten path does not begin with a slash")
	}
	return NormalizePath(string(b))
}
