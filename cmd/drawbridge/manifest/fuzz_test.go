package manifest

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
)

// Every file is either parsed or rejected with faults. A parsed manifest can be
// written and parsed again.
func FuzzParse(f *testing.F) {
	f.Add([]byte("kind: Listener\nname: web\nprotocol: HTTP\n---\nkind: Upstream\nendpoints: [{address: a:1}]\n"))
	f.Add([]byte(`[{"kind": "Route", "respond": {"body": "\ud83d"}}]`))
	f.Add([]byte("kind: Upstream\nlabels: &a {x: *a, <<: [*a, {b: c}]}"))
	f.Add([]byte("? [a]\n: b"))
	f.Add([]byte("kind: Listener\ntimeouts: {idle: -1e9s}\nlimits: {connections: 0o17}"))
	f.Add([]byte("{\"kind\": \"Listener\",\n\"labels\": {\"a\": \"b\"}} {"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Parse(Source{Name: "f.json", Dir: "/", Data: data}); err != nil && err.Error() == "" {
			t.Fatal("JSON refused without a fault")
		}
		m, err := Parse(Source{Name: "f", Dir: "/", Data: data})
		if err != nil {
			faults, ok := errors.AsType[Faults](err)
			if !ok || len(faults) == 0 || faults.Error() == "" {
				t.Fatalf("refused without a fault: %#v", err)
			}
			return
		}
		var out bytes.Buffer
		if err := WriteYAML(&out, m.Resources()); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(Source{Name: "again", Dir: "/", Data: out.Bytes()})
		if err != nil {
			t.Fatalf("%v\n%s", err, out.Bytes())
		}
		for i, r := range m.Resources() {
			if !proto.Equal(r, again.Resources()[i]) {
				t.Fatalf("%v became %v", r, again.Resources()[i])
			}
		}
	})
}

// Locating a field succeeds for any field path of a gateway, and the position
// is in the file.
func FuzzLocate(f *testing.F) {
	m, err := Parse(Source{Name: "f", Dir: "/", Data: []byte("kind: Upstream\nname: u\nlabels: {a.b: c}\nendpoints:\n- address: a:1\n")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("resources[0].upstream.endpoints[0].address")
	f.Add(`resources[0].upstream.labels["a.b"]`)
	f.Add(`resources[0].upstream.labels["a`)
	f.Add("resources[18446744073709551616]..[")
	f.Fuzz(func(t *testing.T, path string) {
		place, _, ok := m.Locate(path)
		if ok && (place.Name != "u" || place.Line < 1 || place.Line > 5) {
			t.Fatalf("%q located at %v", path, place)
		}
	})
}
