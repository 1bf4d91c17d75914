package route

import (
	"errors"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

func TestNormalizeHost(t *testing.T) {
	for in, want := range map[string]string{
		"example.com":                   "example.com",
		"EXAMPLE.Com":                   "example.com",
		"example.com.":                  "example.com",
		"Example.com.:8443":             "example.com",
		"example.com:":                  "example.com",
		"xn--bcher-kva.example":         "xn--bcher-kva.example",
		"my_service":                    "my_service",
		"10.0.0.1:80":                   "10.0.0.1",
		"[::1]":                         "[::1]",
		"[0:0:0::0001]:443":             "[::1]",
		"[2001:DB8::A]":                 "[2001:db8::a]",
		strings.Repeat("a.", 126) + "a": strings.Repeat("a.", 126) + "a",
	} {
		if got, err := NormalizeHost(in); err != nil || got != want {
			t.Errorf("NormalizeHost(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", ".", "..", "a..b", ".a", "a..", ":80", "a:b", "a:80:90", "a:99999", "a:123456", "a:-1", "a b", "a\x00", "a\nb", "a/b", "a@b", "a,b",
		"bücher.example", "a%41", "[::1", "[::1]x", "[::1]:x", "[1.2.3.4]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "::1", "*", "*.example.com",
		strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a",
	} {
		if got, err := NormalizeHost(in); !errors.Is(err, ErrUnsafe) {
			t.Errorf("NormalizeHost(%q) = %q, %v; want ErrUnsafe", in, got, err)
		}
	}
}

func TestNormalizePath(t *testing.T) {
	for in, want := range map[string]string{
		"/":                   "/",
		"*":                   "*",
		"/a/b":                "/a/b",
		"/a/b/":               "/a/b/",
		"//":                  "/",
		"//a///b//":           "/a/b/",
		"/a/./b/.":            "/a/b/",
		"/a/../b":             "/b",
		"/a/b/..":             "/a/",
		"/a/..":               "/",
		"/a//../b":            "/b",
		"/%61%2Db%7e%5F%2e":   "/a-b~_.",
		"/a/%2e%2E/b":         "/b",
		"/a%2fb":              "/a%2Fb",
		"/a%5cb":              "/a%5Cb",
		"/a%252e%252e/b":      "/a%252e%252e/b",
		"/a%20b":              "/a%20b",
		"/a b":                "/a%20b",
		"/bücher":             "/b%C3%BCcher",
		"/b%c3%bccher":        "/b%C3%BCcher",
		"/a|b":                "/a%7Cb",
		"/%7ca":               "/%7Ca",
		"/a;v=1/b":            "/a;v=1/b",
		"/a%3Bb":              "/a%3Bb",
		"/...":                "/...",
		"/.hidden/..x":        "/.hidden/..x",
		"/a:b@c!$&'()*+,;=-~": "/a:b@c!$&'()*+,;=-~",
	} {
		if got, err := NormalizePath(in); err != nil || got != want {
			t.Errorf("NormalizePath(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "a", "http://x/", "**", "/..", "/../a", "/a/../..", "/%2e%2e/a", "/a/%2e%2e/%2e./b", "/a\\b", "/..\\a", "/a%00", "/%00", "/a\x00",
		"/a\nb", "/%0a", "/%0D", "/%7f", "/\x7f", "/\x1b[0m", "/%", "/%1", "/%g0", "/a%2", "/a?b", "/a#b",
		"/a/..;/b", "/a/..;x=1/b", "/.;/a", "/a/..%2fb", "/a%2f..", "/a%2F../b", "/..%5Cb", "/a%5c..%5cb", "/a%2f.%2fb",
	} {
		if got, err := NormalizePath(in); !errors.Is(err, ErrUnsafe) {
			t.Errorf("NormalizePath(%q) = %q, %v; want ErrUnsafe", in, got, err)
		}
	}
}

func TestErrorsShowUntrustedTextBoundedAndEscaped(t *testing.T) {
	_, err := NormalizePath("/\x1b[31m\n" + strings.Repeat("a", 10000))
	if text := err.Error(); len(text) > 300 || strings.ContainsAny(text, "\x1b\n") {
		t.Errorf("error shows %d bytes: %q", len(text), text[:min(len(text), 300)])
	}
}

func TestPlainPathsAllocateNothing(t *testing.T) {
	alloctest.Want(t, "NormalizePath", 0, func() { _, _ = NormalizePath("/api/v2/things/17") })
}

func TestCheckHost(t *testing.T) {
	for _, ok := range []string{"example.com", "*.example.com", "Example.COM.", "*.com", "[::1]", "localhost", "10.0.0.1"} {
		if err := CheckHost(ok); err != nil {
			t.Errorf("CheckHost(%q): %v", ok, err)
		}
	}
	for bad, hint := range map[string]string{
		"":                "leave hosts out",
		"*":               "leave hosts out",
		"a.*.com":         "first label",
		"*a.com":          "first label",
		"*.*.com":         "first label",
		"example.com:443": "no port",
		"[::1]:443":       "without a port",
		"*.[::1]":         "bare IPv6",
		"*.":              "empty",
		"bücher.example":  "xn--",
	} {
		if err := CheckHost(bad); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("CheckHost(%q) = %v; want a hint of %q", bad, err, hint)
		}
	}
}

func TestCheckPath(t *testing.T) {
	for _, ok := range []Path{
		{}, {PathExact, "/"}, {PathPrefix, "/v2"}, {PathPrefix, "/v2/"}, {PathRegex, "/a/[0-9]+"}, {PathExact, "/a%2Fb"},
		{PathRegex, strings.Repeat("a", MaxRegex)},
	} {
		if err := CheckPath(ok); err != nil {
			t.Errorf("CheckPath(%v): %v", ok, err)
		}
	}
	for _, bad := range []struct {
		path Path
		hint string
	}{
		{Path{PathNone, "/x"}, "kind"},
		{Path{PathExact, ""}, "slash"},
		{Path{PathPrefix, "v2"}, "slash"},
		{Path{PathExact, "*"}, "slash"},
		{Path{PathExact, "//a/../b"}, `write "/b"`},
		{Path{PathPrefix, "/%61"}, `write "/a"`},
		{Path{PathPrefix, "/../a"}, "climbs"},
		{Path{PathExact, "/a?b=c"}, "query"},
		{Path{PathRegex, ""}, "empty"},
		{Path{PathRegex, "("}, "RE2"},
		{Path{PathRegex, "a)|(b"}, "RE2"},
		{Path{PathRegex, `(?=x)`}, "RE2"},
		{Path{PathRegex, strings.Repeat("a", MaxRegex+1)}, "at most 1024"},
		{Path{PathRegex, strings.Repeat(`[a-c]{999}`, 12)}, "repeat less"},
		{Path{PathKind(9), "/"}, "kind"},
	} {
		if err := CheckPath(bad.path); err == nil || !strings.Contains(err.Error(), bad.hint) {
			t.Errorf("CheckPath(%v) = %v; want a hint of %q", bad.path, err, bad.hint)
		}
	}
}

func FuzzNormalizeHost(f *testing.F) {
	for _, s := range []string{"Example.com.:80", "[::1]:80", "*.a", "a..b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		once, err := NormalizeHost(in)
		if err != nil {
			return
		}
		if twice, err := NormalizeHost(once); err != nil || twice != once {
			t.Errorf("%q -> %q -> %q, %v", in, once, twice, err)
		}
		if once != strings.ToLower(once) || strings.ContainsAny(once, " \t\r\n\x00/@*,%") || strings.HasSuffix(once, ".") {
			t.Errorf("%q -> %q is not a normal form", in, once)
		}
	})
}

func FuzzNormalizePath(f *testing.F) {
	for _, s := range []string{"/a/%2e%2e/b", "//a/./b", "/%25%32e", "/..;/", "/a%2F..", "*", "/ü"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		once, err := NormalizePath(in)
		if err != nil {
			return
		}
		if twice, err := NormalizePath(once); err != nil || twice != once {
			t.Errorf("%q -> %q -> %q, %v", in, once, twice, err)
		}
		if once == "*" {
			return
		}
		if strings.Contains(once, "//") || strings.Contains(once+"/", "/./") || strings.Contains(once+"/", "/../") {
			t.Errorf("%q -> %q is not resolved", in, once)
		}
		for i := 0; i < len(once); i++ {
			if c := once[i]; c != '%' && !isPathByte(c) {
				t.Errorf("%q -> %q has byte %#x", in, once, c)
			}
		}
	})
}
