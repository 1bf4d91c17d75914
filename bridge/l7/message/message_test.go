package message

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

func TestFieldsCompareWithoutCaseAndKeepTheirOrder(t *testing.T) {
	f := Fields{{"A", "1"}, {"b", "2"}, {"a", "3"}, {"C", "4"}, {"a", "5"}}
	if v, ok := f.Get("a"); v != "1" || !ok {
		t.Errorf("Get: %q %v", v, ok)
	}
	if v, ok := f.Get("d"); v != "" || ok || f.Has("d") {
		t.Errorf("Get of a missing field: %q %v", v, ok)
	}
	if n := f.Count("A"); n != 3 {
		t.Errorf("Count: %d", n)
	}
	if got := slices.Collect(f.Values("A")); !slices.Equal(got, []string{"1", "3", "5"}) {
		t.Errorf("Values: %q", got)
	}
	f.Set("a", "6")
	if want := (Fields{{"A", "6"}, {"b", "2"}, {"C", "4"}}); !slices.Equal(f, want) {
		t.Errorf("Set: %q", f)
	}
	f.Set("d", "7")
	f.Remove("B")
	if want := (Fields{{"A", "6"}, {"C", "4"}, {"d", "7"}}); !slices.Equal(f, want) {
		t.Errorf("Remove: %q", f)
	}
	f.RemoveFunc(func(f Field) bool { return f.Value < "7" })
	if want := (Fields{{"d", "7"}}); !slices.Equal(f, want) {
		t.Errorf("RemoveFunc: %q", f)
	}
}

func TestListsSpanFields(t *testing.T) {
	f := Fields{{"Connection", " close ,\t,Upgrade"}, {"X", "y"}, {"connection", ""}, {"CONNECTION", "TE;q=1, h2c/1"}}
	if got := slices.Collect(f.Elements("Connection")); !slices.Equal(got, []string{"close", "Upgrade", "TE;q=1", "h2c/1"}) {
		t.Errorf("%q", got)
	}
	for token, want := range map[string]bool{"CLOSE": true, "upgrade": true, "te": true, "h2c": true, "clos": false, "y": false, "": false} {
		if f.HasToken("connection", token) != want {
			t.Errorf("HasToken %q: %v", token, !want)
		}
	}
}

func TestReadingFieldsDoesNotAllocate(t *testing.T) {
	f := Fields{{"Host", "a"}, {"Connection", "close, x, y"}, {"Accept", "*/*"}}
	alloctest.Want(t, "reading fields", 0, func() {
		f.Has("accept")
		f.HasToken("Connection", "y")
		for range f.Elements("connection") {
		}
		for range f.Values("host") {
		}
		f.Set("Host", "b")
		f.RemoveFunc(func(f Field) bool { return f.Name == "z" })
	})
}

func TestControlByteAgreesWithALoop(t *testing.T) {
	for n := range 30 {
		for at := range n {
			for c := range 256 {
				b := []byte(strings.Repeat("~", n))
				b[at] = byte(c)
				want := -1
				if c < ' ' && c != '\t' || c == 0x7f {
					want = at
				}
				if got := ControlByte(string(b)); got != want {
					t.Fatalf("%q: %d, want %d", b, got, want)
				}
				// The eight-byte test alone cannot decide on a tab.
				if b[0] = '\t'; at > 0 {
					if got := ControlByte(string(b)); got != want {
						t.Fatalf("%q: %d, want %d", b, got, want)
					}
				}
			}
		}
	}
}

func TestTokensTargetsAuthoritiesAndValues(t *testing.T) {
	for s, want := range map[string]struct{ token, target, authority, value bool }{
		"":               {value: true},
		"GET":            {token: true, authority: true, value: true},
		"x-a_b.c":        {token: true, authority: true, value: true},
		"a b":            {value: true},
		"a\tb":           {value: true},
		" a":             {},
		"a\t":            {},
		"a\r":            {},
		"a\x00b":         {},
		"a\x7f":          {},
		"é":              {value: true},
		"/a?b[]=c|d":     {target: true, value: true},
		"/a#b":           {value: true},
		"/a b":           {value: true},
		"/é":             {value: true},
		"a.b:80":         {authority: true, value: true},
		"[::1]:80":       {authority: true, value: true},
		"a:":             {authority: true, value: true},
		"[::1]":          {authority: true, value: true},
		":80":            {value: true},
		"a:b":            {value: true},
		"a:1:2":          {value: true},
		"a:123456":       {value: true},
		"[::1":           {value: true},
		"[]":             {value: true},
		"[::1]a":         {value: true},
		"[::1%25eth0]":   {value: true},
		"a[::1]":         {value: true},
		"u@a":            {value: true},
		"a,b":            {value: true},
		"a/b":            {value: true},
		"a\\b":           {value: true},
		"token\u212Aelv": {value: true},
	} {
		if IsToken(s) != want.token || IsTarget(s) != want.target || IsAuthority(s) != want.authority || IsValue(s) != want.value {
			t.Errorf("%q: token %v, target %v, authority %v, value %v", s, IsToken(s), IsTarget(s), IsAuthority(s), IsValue(s))
		}
	}
	if EqualFold("k", "\u212A") || !EqualFold("Content-Length", "cONTENT-lENGTH") || EqualFold("a", "ab") || EqualFold("@", "`") {
		t.Error("EqualFold")
	}
}

func BenchmarkControlByte(b *testing.B) {
	s := "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		ControlByte(s)
	}
}
