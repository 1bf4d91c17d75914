package route

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A Rewrite makes the path that an upstream sees of the one that was matched. It
// is immutable. Nil leaves every path as it is.
type Rewrite struct {
	kind rewriteKind
	from string // prefix: what is replaced, without a slash at its end
	to   string // prefix: what takes its place, likewise; path: the path
	bare string // prefix: what becomes of a path that is nothing but from

	regex *regexp.Regexp
	parts []substitute
}

type rewriteKind int

const (
	rewritePrefix rewriteKind = iota
	rewriteRegex
	rewritePath
)

// RewritePrefix returns a Rewrite that puts a prefix in the place of another,
// which is the one that was matched. As matching does, it replaces whole
// segments, and what follows keeps its slash: with "/v2" or "/v2/" and "/api" or
// "/api/", "/v2/x" becomes "/api/x"; with "/" it becomes "/x".
func RewritePrefix(matched, prefix string) (*Rewrite, error) {
	if err := CheckPath(Path{PathPrefix, matched}); err != nil {
		return nil, err
	}
	if err := checkNormal(prefix); err != nil {
		return nil, err
	}
	return &Rewrite{kind: rewritePrefix, from: strings.TrimSuffix(matched, "/"), to: strings.TrimSuffix(prefix, "/"), bare: prefix}, nil
}

// RewritePath returns a Rewrite to one path.
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

// Bounds on what an expression may cost a request. Each of its matches may look
// at all that follows, so there is one on the path, which anybody can make long,
// and one on the matches.
const (
	maxRewritten = 8 << 10 // bytes of a path that expressions are tried on, and of what comes of it
	maxMatches   = 32
)

// RewriteRegex returns a Rewrite that puts a substitution in the place of every
// match of an expression. Its errors say which of the two they are about: a
// *SubstitutionError is about the substitution.
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

// A SubstitutionError says what is wrong with a substitution.
type SubstitutionError struct{ Err error }

func (e *SubstitutionError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *SubstitutionError) Unwrap() error { return e.Err }

// A substitute is text, or what a group matched.
type substitute struct {
	text  string
	group int // of which the text is; -1: text
}

// parseSubstitution reads a substitution: "$1", "${1}", "$name" and "${name}" are
// groups of re, "$$" is a dollar sign. As regexp.Expand has it, a name without
// braces goes on as far as it can; unlike there, what is no group is an error.
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
			return nil, fmt.Errorf("%s is no group of the expression; write ${1} where a letter or digit follows, and $$ for a dollar sign", quote("$"+name))
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
			return nil, fmt.Errorf("the substitution has %q, which no path has", p.text[i])
		}
	}
	return parts, nil
}

// cutGroup cuts a group's name off what follows a dollar sign.
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
		return "", "", errors.New(`the substitution has a "$" that names no group; write "$$" for a dollar sign`)
	}
	return s[:n], s[n:], nil
}

// groupOf returns the number of a group; -1 if there is none.
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

// Apply returns the path for the upstream, in normal form. It refuses
// (ErrUnsafe) a path of which none comes, or one that costs too much to rewrite.
// The target "*" has no path, and stays. Where nothing changes, nothing is
// allocated.
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
		// Not what was matched: the path would reach the upstream as it is.
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
			if p.group >= 0 && m[2*p.group] >= 0 { // else it took no part in the match
				text = path[m[2*p.group]:m[2*p.group+1]]
			}
			if b = append(b, text...); len(b) > maxRewritten {
				return "", unsafe("path", path, "what comes of it is too long")
			}
		}
	}
	b = append(b, path[done:]...)
	if len(b) == 0 || b[0] != '/' { // "*" would be a target of another kind
		return "", unsafe("path", path, "what comes of it does not begin with a slash")
	}
	return NormalizePath(string(b))
}
