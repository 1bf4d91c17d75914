package route

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

func mustRewrite(t testing.TB, w *Rewrite, err error) *Rewrite {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestRewritePrefix(t *testing.T) {
	for _, c := range []struct{ matched, prefix, path, want string }{
		{"/v2/", "/", "/v2/x", "/x"},
		{"/v2/", "/", "/v2/", "/"},
		{"/v2", "/", "/v2", "/"},
		{"/v2", "/", "/v2/", "/"},
		{"/v2", "/", "/v2/x/y/", "/x/y/"},
		{"/v2", "/api", "/v2", "/api"},
		{"/v2", "/api", "/v2/", "/api/"},
		{"/v2", "/api", "/v2/x", "/api/x"},
		{"/v2/", "/api", "/v2/x", "/api/x"}, // nginx would return /apix
		{"/v2/", "/api", "/v2/", "/api/"},
		{"/v2", "/api/", "/v2", "/api/"},
		{"/v2", "/api/", "/v2/x", "/api/x"},
		{"/v2/", "/api/", "/v2/x", "/api/x"},
		{"/", "/api", "/", "/api/"},
		{"/", "/api", "/x", "/api/x"},
		{"/", "/", "/x", "/x"},
		{"/v2", "/v2", "/v2/x", "/v2/x"},
		{"/v2", "/v2/", "/v2", "/v2/"},
		{"/v2", "/v2/", "/v2/x", "/v2/x"},
		{"/v2", "/", "/v2/a%2Fb;v=1", "/a%2Fb;v=1"},
		{"/a%2Fb", "/c%2Fd", "/a%2Fb/x", "/c%2Fd/x"},
		{"/v2", "/v2/v2", "/v2/v2", "/v2/v2/v2"},
		{"/v2", "/api", "*", "*"},
	} {
		w, err := RewritePrefix(c.matched, c.prefix)
		if got, err := mustRewrite(t, w, err).Apply(c.path); err != nil || got != c.want {
			t.Errorf("%s of %s to %s: %q, %v; want %q", c.matched, c.path, c.prefix, got, err, c.want)
		}
	}
	w, err := RewritePrefix("/v2", "/api")
	for _, path := range []string{"/v2x", "/", "/x/v2"} {
		if got, err := mustRewrite(t, w, err).Apply(path); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s, which was not matched, is forwarded as %q", path, got)
		}
	}
	for _, c := range []struct{ matched, prefix, hint string }{
		{"/v2", "", "slash"}, {"/v2", "api", "slash"}, {"/v2", "/a//b", `write "/a/b"`}, {"/v2", "/a/..", `write "/"`}, {"/v2", "/a?b", "query"},
		{"/v2", "/../a", "climbs"}, {"/v2", "*", "slash"}, {"v2", "/", "slash"}, {"/v2", "/a\\b", "backslash"},
	} {
		if _, err := RewritePrefix(c.matched, c.prefix); err == nil || !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%s to %q: %v; want a hint of %q", c.matched, c.prefix, err, c.hint)
		}
	}
}

func TestRewritePath(t *testing.T) {
	w, err := RewritePath("/index.html")
	for path, want := range map[string]string{"/": "/index.html", "/a/b": "/index.html", "*": "*"} {
		if got, err := mustRewrite(t, w, err).Apply(path); err != nil || got != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for _, bad := range []string{"", "x", "*", "/a//", "/a?b"} {
		if _, err := RewritePath(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if got, err := (*Rewrite)(nil).Apply("/x"); got != "/x" || err != nil {
		t.Errorf("no rewrite: %q, %v", got, err)
	}
}

func TestRewriteRegex(t *testing.T) {
	for _, c := range []struct{ pattern, substitution, path, want string }{
		{"^/v([0-9]+)/", "/api/$1/", "/v2/x", "/api/2/x"},
		{"^/v([0-9]+)/", "/api/${1}/", "/v2/x", "/api/2/x"},
		{"^/v(?P<n>[0-9]+)/", "/api/v${n}x/", "/v2/x", "/api/v2x/x"},
		{"^/v(?P<n>[0-9]+)", "/$n", "/v2/x", "/2/x"},
		{"^/v([0-9]+)/", "/$0", "/v2/x", "/v2/x"},
		{"b", "B", "/abba/b", "/aBBa/B"},
		{"b", "", "/abba/b", "/aa/"},
		{"/b", "", "/a/b/c", "/a/c"},
		{"z", "y", "/abba", "/abba"},
		{"a(x)?b", "[$1]", "/ab", "/%5B%5D"},
		{"a", "$$$$1", "/a", "/$$1"},
		{"_", "/", "/a_b__c", "/a/b/c"}, // slashes are merged
		{"/x", "/..", "/a/x/b", "/b"},   // dot segments are resolved
		{"$", "é /", "/a", "/a%C3%A9%20/"},
		{"%2F", "/", "/a%2Fb", "/a/b"},
		{"%2e", "x", "/a.b", "/a.b"},
		{".*", "/x", "*", "*"},
	} {
		w, err := RewriteRegex(c.pattern, c.substitution)
		if got, err := mustRewrite(t, w, err).Apply(c.path); err != nil || got != c.want {
			t.Errorf("%s, %s of %s: %q, %v; want %q", c.pattern, c.substitution, c.path, got, err, c.want)
		}
	}
}

// If the result of an expression has no normal form, the request is rejected.
func TestRewritesWithoutANormalForm(t *testing.T) {
	for _, c := range []struct{ pattern, substitution, path string }{
		{"^/a", "", "/a"},
		{"^/a/", "", "/a/b"},
		{".*", "*", "/a"},
		{"x", "..", "/x/x"},
		{"x", "/..", "/ax/x"},
		{"x", "..;v=1", "/a/x"},
		{"x", "%2F..", "/a/..x"},
		{"x", "%2", "/x"},
		{"x", "%0A", "/x"},
		{"%25(..)", "%$1", "/%2500"},
		{"%252F", "%2F", "/a/.%252F./b"},
		{"(.)", "$1", "/" + strings.Repeat("a", 100)},
		{"a", "b", "/" + strings.Repeat("a", maxRewritten)},
		{"a+", strings.Repeat("$0", 90), "/" + strings.Repeat("a", 100)},
	} {
		w, err := RewriteRegex(c.pattern, c.substitution)
		if got, err := mustRewrite(t, w, err).Apply(c.path); !errors.Is(err, ErrUnsafe) || len(err.Error()) > 400 {
			t.Errorf("%s, %.20s of %.20s: %.40q, %v", c.pattern, c.substitution, c.path, got, err)
		}
	}
}

func TestCheckRewriteRegex(t *testing.T) {
	for _, c := range []struct {
		pattern, substitution, hint string
		substitute                  bool
	}{
		{"", "x", "empty", false},
		{"(", "x", "RE2", false},
		{strings.Repeat("a", MaxRegex+1), "x", "at most 1024", false},
		{strings.Repeat(`[a-c]{999}`, 12), "x", "repeat less", false},
		{"(a)", "$2", `"$2" is not a group`, true},
		{"(a)", "$1x", `"$1x" is not a group`, true},
		{"(a)", "${1", `without "}"`, true},
		{"(a)", "a$", `write "$$"`, true},
		{"(a)", "$/", `write "$$"`, true},
		{"(?P<n>a)", "$m", `"$m" is not a group`, true},
		{"(a)", "${}", "is not a group", true},
		{"(a)", "${-1}", "is not a group", true},
		{"(a)", "$99999999999999999999", "is not a group", true},
		{"a", "/x?y=1", "'?'", true},
		{"a", "/x#y", "'#'", true},
		{"a", "/x\ny", `'\n'`, true},
		{"a", `\1`, `'\\'`, true}, // how sed refers to a group
		{"a", strings.Repeat("a", MaxRegex+1), "at most 1024", true},
	} {
		_, err := RewriteRegex(c.pattern, c.substitution)
		var s *SubstitutionError
		if err == nil || !strings.Contains(err.Error(), c.hint) || errors.As(err, &s) != c.substitute {
			t.Errorf("%.20s, %.20s: %v; want a hint of %q", c.pattern, c.substitution, err, c.hint)
		}
	}
}

// A valid substitution has the meaning that regexp.Expand gives it.
func TestSubstitutionsAgreeWithExpand(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	re := regexp.MustCompile(`/(a)(?P<name>b+)?`)
	pieces := []string{"$1", "$2", "${1}", "${name}", "$name", "$$", "/", "x", "$0", "-"}
	same := 0
	for range 2000 {
		var substitution strings.Builder
		for range 1 + rnd.IntN(5) {
			substitution.WriteString(pieces[rnd.IntN(len(pieces))])
		}
		w, err := RewriteRegex(re.String(), "/"+substitution.String())
		if err != nil {
			continue
		}
		for _, path := range []string{"/ab", "/a/abb/c", "/x"} {
			want, err := NormalizePath(re.ReplaceAllString(path, "/"+substitution.String()))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := w.Apply(path); err != nil || got != want {
				t.Fatalf("%s of %s: %q, %v; want %q", substitution.String(), path, got, err, want)
			}
			same++
		}
	}
	if same < 2000 {
		t.Errorf("only %d were compared", same)
	}
}

func TestRewritesThatChangeNothingAllocateNothing(t *testing.T) {
	same, err := RewritePrefix("/v2", "/v2/")
	mustRewrite(t, same, err)
	shorter, err := RewritePrefix("/v2", "/")
	mustRewrite(t, shorter, err)
	fixed, err := RewritePath("/x")
	mustRewrite(t, fixed, err)
	miss, err := RewriteRegex("/([0-9]+)$", "/$1/")
	mustRewrite(t, miss, err)
	for name, w := range map[string]*Rewrite{"no rewrite": nil, "same": same, "shorter": shorter, "fixed": fixed, "no match": miss} {
		alloctest.Want(t, name, 0, func() { _, _ = w.Apply("/v2/things/17/parts") })
	}
}

// The result of every rewrite is in normal form: the upstream reads the path
// as the gateway does.
func FuzzRewrite(f *testing.F) {
	f.Add("/v2/x", "/api", "/v([0-9]+)", "/a/$1")
	f.Add("/v2/..%2Fx", "/", "x", "..")
	f.Add("/v2//%2e%2e;a", "/a;b/", "%2F", "/")
	f.Fuzz(func(t *testing.T, path, prefix, pattern, substitution string) {
		path, err := NormalizePath(path)
		if err != nil {
			return
		}
		check := func(w *Rewrite, err error) {
			if err != nil {
				return
			}
			got, err := w.Apply(path)
			if err != nil {
				return
			}
			if again, err := NormalizePath(got); err != nil || again != got || got == "*" && path != "*" {
				t.Errorf("%q with %+v -> %q -> %q, %v", path, w, got, again, err)
			}
		}
		check(RewriteRegex(pattern, substitution))
		check(RewritePath(prefix))
		for i := range len(path) {
			if path[i] == '/' {
				check(RewritePrefix(path[:i+1], prefix))
				check(RewritePrefix(path[:max(i, 1)], prefix))
			}
		}
	})
}

func ExampleRewritePrefix() {
	w, _ := RewritePrefix("/v2/", "/api")
	path, _ := w.Apply("/v2/orders/17")
	fmt.Println(path)
	// Output: /api/orders/17
}
