package route

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

// After any edits, a table equals the table that New builds from the same rules. An
// edit is refused exactly if New refuses the rules.
func TestEditingATableEqualsRebuildingIt(t *testing.T) {
	refused, accepted := 0, 0
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 7))
		rules := map[string]Rule[string]{}
		table, err := New[string](nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 60 {
			next := map[string]Rule[string]{}
			for name, r := range rules {
				next[name] = r
			}
			var remove, add []Rule[string]
			for range 1 + random.IntN(3) {
				name := fmt.Sprint("r", random.IntN(12))
				if contains(remove, name) || contains(add, name) {
					continue // one check of each result is enough
				}
				if before, ok := rules[name]; ok {
					remove = append(remove, before)
					delete(next, name)
					if random.IntN(4) == 0 {
						continue
					}
				}
				r := randomRules(random)[0]
				r.Name, r.Value = name, fmt.Sprint(name, random.IntN(100))
				if random.IntN(3) == 0 {
					r.Path = Path{PathRegex, fmt.Sprintf("/[a-z]{1,%d}", 1+random.IntN(3))}
				}
				next[name] = r
				add = append(add, r)
			}
			var all []Rule[string]
			for i := range 12 {
				if r, ok := next[fmt.Sprint("r", i)]; ok {
					all = append(all, r)
				}
			}
			want, wantErr := New(all)
			got, gotErr := table.Edit(remove, add)
			if (wantErr == nil) != (gotErr == nil) {
				t.Fatalf("seed %d: New says %v, Edit says %v", seed, wantErr, gotErr)
			}
			if gotErr != nil {
				refused++
				continue
			}
			accepted++
			if a, b := describeTable(got), describeTable(want); !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d: the edited table is\n%v\nand that of its rules\n%v", seed, a, b)
			}
			if before := describeTable(table); len(rules) > 0 && len(before) == 0 {
				t.Fatal("the edited table has changed")
			}
			table, rules = got, next
		}
	}
	if refused < 50 || accepted < 500 {
		t.Errorf("only %d edits were refused, and %d accepted", refused, accepted)
	}
}

func contains(rules []Rule[string], name string) bool {
	for _, r := range rules {
		if r.Name == name {
			return true
		}
	}
	return false
}

// describeTable returns every list of a table by host and path, and the table's other
// fields.
func describeTable(t *Table[string]) map[string]string {
	out := map[string]string{}
	put := func(host string, b *bucket[string]) {
		if b == nil {
			return
		}
		list := func(what string, es []*entry[string]) {
			for i, e := range es {
				text := fmt.Sprintf("%s %s %v %v %s %s", e.name, e.client.String(), e.methods, e.headers, e.scheme, e.value)
				if e.regex != nil {
					text += e.regex.String()
				}
				out[fmt.Sprintf("%s %s %d", host, what, i)] = text
			}
		}
		for path, es := range b.exact.All() {
			list("exact "+path, es)
		}
		for path, es := range b.prefixes.All() {
			list("prefix "+path, es)
		}
		list("regex", b.regexes)
		list("none", b.none)
		out[host+" longest"] = fmt.Sprint(b.longest)
	}
	for host, b := range t.exact.All() {
		put(host, b)
	}
	for host, b := range t.wildcard.All() {
		put("*."+host, b)
	}
	out["headers"], out["programs"] = fmt.Sprint(t.headerNames, t.headers), fmt.Sprint(t.programs)
	return out
}

// An edit of one rule among ten thousand copies few others, for rules that differ in
// hosts and for rules that differ in paths.
func TestAnEditCopiesFewOtherRules(t *testing.T) {
	const n = 10_000
	for what, rule := range map[string]func(i int) Rule[int]{
		"hosts":     func(i int) Rule[int] { return Rule[int]{Hosts: []string{fmt.Sprintf("h%d.test", i)}} },
		"wildcards": func(i int) Rule[int] { return Rule[int]{Hosts: []string{fmt.Sprintf("*.h%d.test", i)}} },
		"prefixes":  func(i int) Rule[int] { return Rule[int]{Path: Path{PathPrefix, fmt.Sprintf("/p%d/", i)}} },
		"paths":     func(i int) Rule[int] { return Rule[int]{Path: Path{PathExact, fmt.Sprintf("/p%d/", i)}} },
	} {
		var rules []Rule[int]
		for i := range n {
			r := rule(i)
			r.Name = fmt.Sprint("r", i)
			rules = append(rules, r)
		}
		table, err := New(rules)
		if err != nil {
			t.Fatal(err)
		}
		changed := rules[4711]
		changed.Value = 1
		for edit, lists := range map[string][2][]Rule[int]{"change": {rules[4711:4712], {changed}}, "remove": {rules[4711:4712], nil}} {
			e := newEditor(table)
			if err := e.edit(lists[0], lists[1]); err != nil {
				t.Fatal(err)
			}
			if e.copied() > n/20 {
				t.Errorf("%s: to %s one rule, %d of %d entries were copied", what, edit, e.copied(), n)
			}
		}
	}
}

func TestAnEditKeepsTheLimitOfExpressions(t *testing.T) {
	big := func(i int) Rule[int] {
		return Rule[int]{Name: fmt.Sprint(i), Path: Path{PathRegex, fmt.Sprintf("/(a|b|c){1,400}%d", i)}}
	}
	var table *Table[int]
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		var next *Table[int]
		if next, err = table.Edit(nil, []Rule[int]{big(n)}); err == nil {
			table = next
		}
	}
	if err == nil {
		t.Fatal("a thousand large expressions were accepted")
	}
	if _, err := table.Edit([]Rule[int]{big(0)}, []Rule[int]{big(n)}); err != nil {
		t.Errorf("an expression instead of another: %v", err)
	}
}

func BenchmarkEditAmongTenThousand(b *testing.B) {
	for _, kind := range []string{"hosts", "prefixes"} {
		b.Run(kind, func(b *testing.B) {
			rule := func(i, value int) Rule[int] {
				r := Rule[int]{Name: fmt.Sprint(i), Value: value}
				if kind == "hosts" {
					r.Hosts = []string{fmt.Sprintf("h%05d.test", i)}
				} else {
					r.Path = Path{PathPrefix, fmt.Sprintf("/p%05d/", i)}
				}
				return r
			}
			var rules []Rule[int]
			for i := range 10_000 {
				rules = append(rules, rule(i, 0))
			}
			table, err := New(rules)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := i * 7919 % len(rules)
				fresh := rule(at, i)
				if table, err = table.Edit(rules[at:at+1], []Rule[int]{fresh}); err != nil {
					b.Fatal(err)
				}
				rules[at] = fresh
			}
		})
	}
}
