package route

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

func TestExpressionsAreBoundedTogether(t *testing.T) {
	var rules []Rule[int]
	for i := range 200 {
		rules = append(rules, Rule[int]{Name: fmt.Sprint(i), Path: Path{PathRegex, fmt.Sprintf("/(a|b|c){1,400}%d", i)}})
	}
	if _, err := New(rules[:20]); err != nil {
		t.Fatal(err)
	}
	_, err := New(rules)
	var re *RuleError
	if !errors.As(err, &re) || re.Field != "path" || !strings.Contains(err.Error(), "together") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

func mustTable(t testing.TB, rules ...Rule[string]) *Table[string] {
	t.Helper()
	for i := range rules {
		rules[i].Value = rules[i].Name
	}
	table, err := New(rules)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func exactly(s string) *string { return &s }

func TestMostSpecificRuleWins(t *testing.T) {
	table := mustTable(t,
		Rule[string]{Name: "all"},
		Rule[string]{Name: "host", Hosts: []string{"Pay.example.com."}},
		Rule[string]{Name: "wild", Hosts: []string{"*.example.com"}},
		Rule[string]{Name: "wild-only", Hosts: []string{"*.example.com"}, Path: Path{PathExact, "/only"}},
		Rule[string]{Name: "exact", Hosts: []string{"pay.example.com"}, Path: Path{PathExact, "/v2/x"}},
		Rule[string]{Name: "v2", Hosts: []string{"pay.example.com"}, Path: Path{PathPrefix, "/v2"}},
		Rule[string]{Name: "v2/", Hosts: []string{"pay.example.com"}, Path: Path{PathPrefix, "/v2/"}},
		Rule[string]{Name: "v2/a", Hosts: []string{"pay.example.com"}, Path: Path{PathPrefix, "/v2/a"}},
		Rule[string]{Name: "regex", Hosts: []string{"pay.example.com"}, Path: Path{PathRegex, "/[a-z]+/[0-9]+|/x"}},
		Rule[string]{Name: "post", Hosts: []string{"pay.example.com"}, Path: Path{PathPrefix, "/v2"}, Methods: []string{"POST", "PUT"}},
		Rule[string]{Name: "tenant", Hosts: []string{"pay.example.com"}, Path: Path{PathPrefix, "/v2"}, Methods: []string{"POST"}, Headers: []Header{{"x-tenant", nil}}},
		Rule[string]{Name: "tenant-a", Hosts: []string{"pay.example.com"}, Path: Path{PathPrefix, "/v2"}, Methods: []string{"POST"}, Headers: []Header{{"x-tenant", exactly("a")}}},
		Rule[string]{Name: "ip", Hosts: []string{"[::1]"}},
		Rule[string]{Name: "limited", Hosts: []string{"limited.example.com"}, Path: Path{PathPrefix, "/ok"}},
	)
	for _, c := range []struct{ host, path, method, tenant, want string }{
		{"other.org", "/", "GET", "", "all"},
		{"", "/", "GET", "", "all"},
		{"pay.example.com", "/", "GET", "", "host"},
		{"a.example.com", "/", "GET", "", "wild"},
		{"a.b.example.com", "/", "GET", "", "all"},
		{"example.com", "/", "GET", "", "all"},
		{"pay.example.com", "/only", "GET", "", "host"},
		{"pay.example.com", "/v2/x", "GET", "", "exact"},
		{"pay.example.com", "/v2", "GET", "", "v2"},
		{"pay.example.com", "/v2/", "GET", "", "v2/"},
		{"pay.example.com", "/v2/b", "GET", "", "v2/"},
		{"pay.example.com", "/v2x", "GET", "", "host"},
		{"pay.example.com", "/v2/a", "GET", "", "v2/a"},
		{"pay.example.com", "/v2/a/b", "GET", "", "v2/a"},
		{"pay.example.com", "/v2/ab", "GET", "", "v2/"},
		{"pay.example.com", "/v2", "POST", "", "post"},
		{"pay.example.com", "/v2", "post", "", "v2"},
		{"pay.example.com", "/v2", "POST", "b", "tenant"},
		{"pay.example.com", "/v2", "POST", "a", "tenant-a"},
		{"pay.example.com", "/abc/12", "GET", "", "regex"},
		{"pay.example.com", "/x", "GET", "", "regex"},
		{"pay.example.com", "/xy", "GET", "", "host"},
		{"pay.example.com", "/abc/12/", "GET", "", "host"},
		{"pay.example.com", "*", "OPTIONS", "", "host"},
		{"limited.example.com", "/no", "GET", "", "wild"},
		{"limited.example.com", "/only", "GET", "", "wild-only"},
		{"[::1]", "/", "GET", "", "ip"},
	} {
		header := http.Header{}
		if c.tenant != "" {
			header.Add("X-Tenant", "z")
			header.Add("X-Tenant", c.tenant)
		}
		if got, ok := table.Match(Request{Host: c.host, Path: c.path, Method: c.method, Header: header.Values}); !ok || got != c.want {
			t.Errorf("%s %s%s tenant %q: %q, %v; want %q", c.method, c.host, c.path, c.tenant, got, ok, c.want)
		}
	}
}

func TestNilTableMatchesNothing(t *testing.T) {
	var table *Table[int]
	if v, ok := table.Match(Request{Host: "a", Path: "/"}); ok || v != 0 {
		t.Errorf("matched %v", v)
	}
}

func TestAmbiguousRulesAreRejected(t *testing.T) {
	v2 := Path{PathPrefix, "/v2"}
	_, err := New([]Rule[int]{
		{Name: "a", Hosts: []string{"x.com", "y.com"}, Path: v2},
		{Name: "b", Hosts: []string{"Y.com.", "z.com"}, Path: v2},
		{Name: "c", Methods: []string{"GET", "PUT"}, Headers: []Header{{"X-A", nil}, {"x-b", exactly("1")}}},
		{Name: "d", Methods: []string{"POST", "PUT"}, Headers: []Header{{"X-B", exactly("1")}, {"x-a", nil}}},
		{Name: "e"},
		{Name: "f"},
		{Name: "g"},
	})
	var got []string
	for _, e := range err.(Errors) {
		var c *ConflictError
		if !errors.As(e, &c) {
			t.Fatalf("%v is not a conflict", e)
		}
		got = append(got, c.Rules[0]+"-"+c.Rules[1]+": "+c.Conditions)
	}
	want := []string{
		`a-b: host y.com, path prefix "/v2"`,
		`c-d: method PUT, header X-A, header X-B: "1"`,
		`e-f: everything`,
		`e-g: everything`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestRulesOfDifferentTablesAreNotAmbiguous(t *testing.T) {
	rules := []Rule[int]{{Name: "a0"}, {Name: "b0"}, {Name: "a1", Hosts: []string{"x.com"}}, {Name: "b1"}, {Name: "a2", Hosts: []string{"x.com"}, Path: Path{PathPrefix, "nothing"}}}
	err := Conflicts(rules, func(i, j int) bool { return rules[i].Name[0] != rules[j].Name[0] })
	var got []string
	for _, e := range err.(Errors) {
		var c *ConflictError
		if errors.As(e, &c) {
			got = append(got, c.Rules[0]+"-"+c.Rules[1])
		} else {
			got = append(got, e.Error())
		}
	}
	if len(got) != 2 || got[0] != "b0-b1" || !strings.Contains(got[1], "a2") {
		t.Errorf("%q", got)
	}
}

func TestRulesThatDifferAreAccepted(t *testing.T) {
	mustTable(t,
		Rule[string]{Name: "a", Hosts: []string{"x.com", "X.com"}},
		Rule[string]{Name: "b", Hosts: []string{"*.x.com"}},
		Rule[string]{Name: "c", Hosts: []string{"x.com"}, Path: Path{PathPrefix, "/a"}},
		Rule[string]{Name: "d", Hosts: []string{"x.com"}, Path: Path{PathExact, "/a"}},
		Rule[string]{Name: "e", Hosts: []string{"x.com"}, Path: Path{PathRegex, "/a"}},
		Rule[string]{Name: "f", Hosts: []string{"x.com"}, Path: Path{PathPrefix, "/a/"}},
		Rule[string]{Name: "g", Hosts: []string{"x.com"}, Methods: []string{"GET"}},
		Rule[string]{Name: "h", Hosts: []string{"x.com"}, Methods: []string{"PUT"}},
		Rule[string]{Name: "i", Hosts: []string{"x.com"}, Headers: []Header{{"A", exactly("1")}}},
		Rule[string]{Name: "j", Hosts: []string{"x.com"}, Headers: []Header{{"A", exactly("2")}}},
	)
}

func TestAllFaultsAreReportedAtOnce(t *testing.T) {
	_, err := New([]Rule[int]{
		{Name: "a", Hosts: []string{"ok.com", "a b"}, Path: Path{PathExact, "x"}, Methods: []string{"G T"}, Headers: []Header{{"", nil}, {"Host", exactly("x")}, {"X-A", exactly("a\nb")}, {"te", nil}}},
		{Name: "b", Path: Path{PathRegex, "("}},
	})
	var fields []string
	for _, e := range err.(Errors) {
		var r *RuleError
		if errors.As(e, &r) {
			fields = append(fields, r.Rule+" "+r.Field)
		}
	}
	want := []string{"a hosts[1]", "a path", "a methods[0]", "a headers[0]", "a headers[1]", "a headers[2]", "a headers[3]", "b path"}
	if !slices.Equal(fields, want) {
		t.Errorf("got %q, want %q: %v", fields, want, err)
	}
}

// A regular expression cannot escape its anchors.
func TestRegexIsAnchored(t *testing.T) {
	table := mustTable(t, Rule[string]{Name: "alt", Path: Path{PathRegex, "/a|/b"}}, Rule[string]{Name: "quoted", Path: Path{PathRegex, `\Q/c.d`}},
		Rule[string]{Name: "lines", Path: Path{PathRegex, `(?m)^/e$`}})
	for path, want := range map[string]string{"/a": "alt", "/b": "alt", "/ab": "", "/b/x": "", "/x/a": "", "/c.d": "quoted", "/cxd": "", "/e": "lines", "/e/f": ""} {
		if got, _ := table.Match(Request{Path: path}); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// naive implements the order of rules in the simplest possible way.
func naive(rules []Rule[string], r Request) string {
	best, bestRank := "", []int(nil)
	for _, rule := range rules {
		rank, ok := rankOf(rule, r)
		if !ok {
			continue
		}
		if c := slices.Compare(rank, bestRank); bestRank == nil || c > 0 || c == 0 && rule.Name < best {
			best, bestRank = rule.Name, rank
		}
	}
	return best
}

func rankOf(rule Rule[string], r Request) (rank []int, ok bool) {
	host := -1
	if len(rule.Hosts) == 0 {
		host = 0
	}
	for _, h := range rule.Hosts {
		if h == r.Host {
			host = max(host, 2)
		} else if parent, wild := strings.CutPrefix(h, "*"); wild && strings.HasSuffix(r.Host, parent) && !strings.Contains(strings.TrimSuffix(r.Host, parent), ".") {
			host = max(host, 1)
		}
	}
	v, path := rule.Path.Value, 0
	switch rule.Path.Kind {
	case PathExact:
		ok, path = r.Path == v, 1_000_000
	case PathPrefix:
		ok, path = strings.HasPrefix(r.Path, v) && (strings.HasSuffix(v, "/") || len(r.Path) == len(v) || r.Path[len(v)] == '/'), 1000+len(v)
	case PathRegex:
		ok, path = regexp.MustCompile("^(?:"+v+")$").MatchString(r.Path), 1
	default:
		ok = true
	}
	if host < 0 || !ok || rule.NotScheme != "" && rule.NotScheme == r.Scheme || len(rule.Methods) > 0 && !slices.Contains(rule.Methods, r.Method) {
		return nil, false
	}
	conditions, exact := min(len(rule.Methods), 1), 0
	for _, h := range rule.Headers {
		conditions++
		values := r.Header(h.Name)
		if h.Exact != nil {
			exact++
			if !slices.Contains(values, *h.Exact) {
				return nil, false
			}
		} else if len(values) == 0 {
			return nil, false
		}
	}
	client, ok := rankOfClient(rule.Client, r.Client)
	if !ok {
		return nil, false
	}
	return slices.Concat([]int{host, path}, client, []int{conditions, exact}), true
}

func rankOfClient(want *Identity, c *Client) (rank []int, ok bool) {
	if want == nil {
		return []int{0, 0, 0}, true
	}
	if c == nil {
		return nil, false
	}
	rank = []int{min(len(want.Fingerprints), 1), 0, min(len(want.Issuer), 1)}
	if rank[0] > 0 && !slices.Contains(want.Fingerprints, c.Fingerprint) || rank[2] > 0 && want.Issuer != c.Issuer {
		return nil, false
	}
	for _, name := range want.SANs {
		pattern := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(name), `\*`, "[a-z]+") + "$")
		if slices.ContainsFunc(c.SANs, pattern.MatchString) {
			rank[1] = max(rank[1], 100-strings.Count(name, "*"))
		}
	}
	return rank, len(want.SANs) == 0 || rank[1] > 0
}

var (
	someHosts = []string{"a.com", "b.a.com", "c.b.a.com", "[::1]", "com"}
	somePaths = []string{"/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/a/b/c/", "/z/1"}

	someNames    = []string{"DNS:a.com", "URI:spiffe://c/a/b", "URI:spiffe://c/a/c", "URI:spiffe://c/b/b", "URI:spiffe://d/a"}
	somePrints   = []string{strings.Repeat("a", 64), strings.Repeat("b", 64)}
	someIssuers  = []string{"CN=a", "CN=b,O=c"}
	somePatterns = append([]string{"URI:spiffe://c/*/b", "URI:spiffe://c/a/*", "URI:spiffe://c/*/*", "URI:spiffe://d/*"}, someNames...)
)

func randomIdentity(rnd *rand.Rand) *Identity {
	id := &Identity{}
	for range rnd.IntN(3) {
		id.SANs = append(id.SANs, somePatterns[rnd.IntN(len(somePatterns))])
	}
	if rnd.IntN(4) == 0 {
		id.Fingerprints = []string{somePrints[rnd.IntN(2)]}
	}
	if rnd.IntN(4) == 0 {
		id.Issuer = someIssuers[rnd.IntN(2)]
	}
	if len(id.SANs)+len(id.Fingerprints) == 0 && id.Issuer == "" {
		return nil
	}
	return id
}

func randomClient(rnd *rand.Rand) *Client {
	if rnd.IntN(5) == 0 {
		return nil
	}
	c := &Client{Fingerprint: somePrints[rnd.IntN(2)], Issuer: someIssuers[rnd.IntN(2)]}
	for range rnd.IntN(3) {
		c.SANs = append(c.SANs, someNames[rnd.IntN(len(someNames))])
	}
	return c
}

func randomRules(rnd *rand.Rand) []Rule[string] {
	pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
	rules := make([]Rule[string], 1+rnd.IntN(30))
	for i := range rules {
		r := &rules[i]
		r.Name = fmt.Sprintf("r%02d", i)
		for range rnd.IntN(3) {
			r.Hosts = append(r.Hosts, pick(append(someHosts, "*.a.com", "*.com", "*.b.a.com")...))
		}
		switch r.Path.Kind = PathKind(rnd.IntN(4)); r.Path.Kind {
		case PathExact, PathPrefix:
			r.Path.Value = pick(somePaths...)
		case PathRegex:
			r.Path.Value = pick("/a.*", "/[a-z]/[0-9]", "/|/a")
		}
		for range rnd.IntN(2) {
			r.Methods = append(r.Methods, pick("GET", "PUT"))
		}
		for range rnd.IntN(2) {
			r.Headers = append(r.Headers, Header{pick("A", "B"), []*string{nil, exactly("1"), exactly("2")}[rnd.IntN(3)]})
		}
		r.NotScheme = pick("http", "https", "", "")
		if rnd.IntN(4) == 0 {
			r.Client = randomIdentity(rnd)
		}
	}
	return rules
}

// withoutConflicts drops rules until no two are ambiguous.
func withoutConflicts(rules []Rule[string]) []Rule[string] {
	var kept []Rule[string]
	for _, r := range rules {
		if _, err := New(append(slices.Clone(kept), r)); err == nil {
			kept = append(kept, r)
		}
	}
	return kept
}

func TestMatchAgreesWithNaiveReference(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	matched := 0
	for range 400 {
		rules := withoutConflicts(randomRules(rnd))
		table := mustTable(t, rules...)
		for range 100 {
			header := http.Header{}
			for _, name := range []string{"A", "B"} {
				if rnd.IntN(2) == 0 {
					header.Add(name, fmt.Sprint(1+rnd.IntN(3)))
				}
			}
			pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
			r := Request{Host: pick(someHosts...), Path: pick(somePaths...), Method: pick("GET", "PUT", "HEAD"), Scheme: pick("http", "https", ""), Header: header.Values, Client: randomClient(rnd)}
			got, ok := table.Match(r)
			if want := naive(rules, r); got != want || ok != (want != "") {
				t.Fatalf("%v: %q, want %q of\n%+v", r, got, want, rules)
			}
			if ok {
				matched++
			}
		}
	}
	if matched < 10000 {
		t.Errorf("only %d of 40000 requests matched: the test shows little", matched)
	}
}

func FuzzMatch(f *testing.F) {
	rules := withoutConflicts(randomRules(rand.New(rand.NewPCG(3, 4))))
	table := mustTable(f, rules...)
	f.Add("a.com", "/a/b", "GET", "1")
	f.Add("", "", "", "")
	f.Fuzz(func(t *testing.T, host, path, method, value string) {
		host, errHost := NormalizeHost(host)
		path, errPath := NormalizePath(path)
		if errHost != nil || errPath != nil {
			return
		}
		r := Request{Host: host, Path: path, Method: method, Header: http.Header{"A": {value}}.Values}
		if got, _ := table.Match(r); got != naive(rules, r) {
			t.Errorf("%v: %q, want %q", r, got, naive(rules, r))
		}
	})
}

func manyRules(n int) []Rule[string] {
	rules := make([]Rule[string], n)
	for i := range rules {
		r := &rules[i]
		r.Name = fmt.Sprint("r", i)
		switch i % 3 {
		case 0:
			r.Hosts = []string{fmt.Sprintf("h%d.example.com", i)}
		case 1:
			r.Hosts, r.Path = []string{"api.example.com"}, Path{PathPrefix, fmt.Sprintf("/service/%d/", i)}
		case 2:
			r.Hosts, r.Path = []string{"api.example.com"}, Path{PathExact, fmt.Sprintf("/thing/%d", i)}
		}
	}
	return rules
}

func TestMatchAllocatesNothing(t *testing.T) {
	rules := append(manyRules(100), Rule[string]{Name: "rest", Path: Path{PathRegex, "/x/[0-9]+"}, Headers: []Header{{"X-A", nil}}})
	table := mustTable(t, rules...)
	header := http.Header{"X-A": {"1"}}.Values
	for _, r := range []Request{{Host: "api.example.com", Path: "/service/1/a/b"}, {Host: "h3.example.com", Path: "/"}, {Host: "no", Path: "/x/12", Header: header}} {
		if _, ok := table.Match(r); !ok {
			t.Errorf("%v does not match", r.Path)
		}
		alloctest.Want(t, r.Path, 0, func() { table.Match(r) })
	}
}

// Matching among ten thousand rules takes about as long as among ten. The
// ratio is logged, not asserted: the machine may be busy.
func TestMatchTimeHardlyGrows(t *testing.T) {
	few, many := matchTime(t, 10), matchTime(t, 10000)
	t.Logf("a match takes %.0f ns of 10 rules, %.0f ns of 10000: %.2f times as long", few, many, many/few)
}

// matchTime returns the nanoseconds of a match: the minimum of several
// attempts, to exclude disturbances.
func matchTime(t *testing.T, rules int) float64 {
	table, requests := mustTable(t, manyRules(rules)...), someRequests()
	best := time.Duration(math.MaxInt64)
	const times = 20000
	for range 10 {
		begun := time.Now()
		for i := range times {
			table.Match(requests[i%len(requests)])
		}
		best = min(best, time.Since(begun))
	}
	return float64(best.Nanoseconds()) / times
}

// someRequests returns requests for hosts and paths of manyRules, and one that
// matches no rule.
func someRequests() []Request {
	return []Request{
		{Host: "h3.example.com", Path: "/", Method: "GET"},
		{Host: "api.example.com", Path: "/service/4/things/17/parts", Method: "GET"},
		{Host: "api.example.com", Path: "/thing/5", Method: "GET"},
		{Host: "none.example.org", Path: "/a/b/c", Method: "GET"},
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		table := mustTable(b, manyRules(n)...)
		requests := someRequests()
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table.Match(requests[i%len(requests)])
			}
		})
	}
}
