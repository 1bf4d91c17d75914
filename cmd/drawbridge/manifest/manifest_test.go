package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func parse(text string) (*Manifest, error) {
	return Parse(Source{Name: "f.yaml", Dir: "/etc/db", Data: []byte(text)})
}

// same checks that text parses to the resources in want, which is prototext.
func same(t *testing.T, text string, want ...string) {
	t.Helper()
	m, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Documents) != len(want) {
		t.Fatalf("%d resources, want %d", len(m.Documents), len(want))
	}
	for i, w := range want {
		var r adminv1.Resource
		if err := prototext.Unmarshal([]byte(w), &r); err != nil {
			t.Fatalf("the test's own text: %v", err)
		}
		if got := m.Resources()[i]; !proto.Equal(got, &r) {
			t.Errorf("resource %d is %v, want %v", i, got, &r)
		}
	}
}

func TestDocumentsBecomeResources(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"the example in the documentation": {`
# a comment
kind: TrustBundle
name: corp
file: corp-ca.pem
---
kind: Certificate
name: client
files: {certificatePath: client.pem, privateKeyPath: /abs/client.key}
---
---
kind: Upstream
name: payments
endpoints: [{address: payments.internal:443}]
tls: {certificate: client, trustBundles: [corp], verifyDepth: 2}
---
kind: Listener
name: payments
address: 127.0.0.1:8080
protocol: PROTOCOL_HTTP
upstream: payments
`, []string{
			`trust_bundle { name: "corp" file: "/etc/db/corp-ca.pem" }`,
			`certificate { name: "client" files { certificate_path: "/etc/db/client.pem" private_key_path: "/abs/client.key" } }`,
			`upstream { name: "payments" endpoints { address: "payments.internal:443" } tls { certificate: "client" trust_bundles: "corp" verify_depth: 2 } }`,
			`listener { name: "payments" address: "127.0.0.1:8080" protocol: PROTOCOL_HTTP upstream: "payments" }`,
		}},
		"both spellings of fields": {
			"kind: upstream\ntls: {verify_depth: 1, minVersion: TLS_VERSION_1_2}",
			[]string{`upstream { tls { verify_depth: 1 min_version: TLS_VERSION_1_2 } }`}},
		"enums without their prefix": {
			"kind: upstream\ntls: {verification: report_only, minVersion: TLSv1.2, max_version: \"1.3\"}\nhttp: {protocol: 2, host: UPSTREAM}",
			[]string{`upstream { tls { verification: VERIFICATION_REPORT_ONLY min_version: TLS_VERSION_1_2 max_version: TLS_VERSION_1_3 }
				http { protocol: HTTP_PROTOCOL_2 host: HOST_HEADER_UPSTREAM } }`}},
		"durations of protojson and of Go": {
			"kind: listener\ntimeouts: {handshake: 1.5s, idle: 1m30s}",
			[]string{`listener { timeouts { handshake { seconds: 1 nanos: 500000000 } idle { seconds: 90 } } }`}},
		"a JSON list with escapes that YAML does not have": {
			"[\n\t{\"kind\": \"Route\", \"name\": \"r\", \"respond\": {\"code\": 200, \"body\": \"\\ud83d\\ude00\\/\"}},\n\t{\"kind\": \"Upstream\", \"plaintext\": {}}\n]",
			[]string{`route { name: "r" respond { code: 200 body: "😀/" } }`, `upstream { plaintext {} }`}},
		"JSON objects one after another": {
			`{"kind":"TrustBundle","name":"a","system":{}} {"kind":"TrustBundle","name":"b","revision":"3","pem":"x"}`,
			[]string{`trust_bundle { name: "a" system {} }`, `trust_bundle { name: "b" revision: 3 pem: "x" }`}},
		"a YAML list": {
			"- kind: Listener\n  name: a\n- kind: Listener\n  name: b\n",
			[]string{`listener { name: "a" }`, `listener { name: "b" }`}},
		"anchors, aliases and merge keys": {
			"kind: Upstream\nendpoints:\n- &a {address: a:1, weight: 2}\n- {<<: *a, address: b:1}\n- *a\nlabels: {x: &v val, y: *v}",
			[]string{`upstream { endpoints { address: "a:1" weight: 2 } endpoints { address: "b:1" weight: 2 } endpoints { address: "a:1" weight: 2 }
				labels { key: "x" value: "val" } labels { key: "y" value: "val" } }`}},
		"presence of false and zero": {
			"kind: Upstream\ntls: {verifyDepth: 0, sessionReuse: false}",
			[]string{`upstream { tls { verify_depth: 0 session_reuse: false } }`}},
		"the output of get, with times": {
			"kind: Certificate\nname: c\nrevision: \"7\"\ninfo: {subject: CN=c, notAfter: 2030-01-01T00:00:00Z}",
			[]string{`certificate { name: "c" revision: 7 info { subject: "CN=c" not_after { seconds: 1893456000 } } }`}},
		"no documents": {"# only a comment\n---\n", nil},
	} {
		t.Run(name, func(t *testing.T) { same(t, tt.text, tt.want...) })
	}
}

func TestFaultsNameLineDocumentAndField(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want []string // the beginning of each fault
	}{
		"an unknown field with a similar name": {"kind: Listener\nname: web\nadress: x",
			[]string{"f.yaml:3: document 1 (Listener web): adress: no such field; did you mean address?"}},
		"a broken protocol": {"kind: Upstream\nname: old\ntls: {minVersion: SSLv3, maxVersion: TLSv1.4}",
			[]string{
				`f.yaml:3: document 1 (Upstream old): tls.minVersion: must be one of 1_0, 1_1, 1_2, 1_3, because SSLv2 and SSLv3 are broken (RFC 6176, RFC 7568) and not supported, not "SSLv3"`,
				`f.yaml:3: document 1 (Upstream old): tls.maxVersion: must be one of 1_0, 1_1, 1_2, 1_3, not "TLSv1.4"`,
			}},
		"an unknown field without a similar name": {"kind: Listener\nname: web\nlimits: {zzz: 1}",
			[]string{"f.yaml:3: document 1 (Listener web): limits.zzz: no such field; ListenerLimits has connections, connectionsPerClient"}},
		"every fault of every document": {"kind: Listener\nname: web\nprotocol: GOPHER\ntls:\n---\nkind: Upstream\nname: up\nendpoints:\n- address: 7\n- weight: -1\n- weight: 4294967296\n- backup: on\n",
			[]string{
				`f.yaml:3: document 1 (Listener web): protocol: must be one of TCP, HTTP, not "GOPHER"`,
				"f.yaml:4: document 1 (Listener web): tls: has no value; write {} for every default, or leave it out",
				`f.yaml:9: document 2 (Upstream up): endpoints[0].address: must be a string (written "7"), not 7`,
				"f.yaml:10: document 2 (Upstream up): endpoints[1].weight: must be a whole number from 0 to 2147483647, not -1",
				"f.yaml:11: document 2 (Upstream up): endpoints[2].weight: must be a whole number from 0 to 2147483647, not 4294967296",
				`f.yaml:12: document 2 (Upstream up): endpoints[3].backup: must be true or false, not "on"`,
			}},
		"duplicate key": {"kind: Listener\nname: a\naddress: x\naddress: y",
			[]string{"f.yaml:4: document 1: address: is given twice; first in line 3"}},
		"duplicate key in JSON": {"{\"kind\": \"Listener\",\n\"name\": \"a\",\n\"name\": \"b\"}",
			[]string{"f.yaml:3: document 1: name: is given twice; first in line 2"}},
		"one field in both spellings": {"kind: Listener\nlimits: {connectionsPerClient: 1, connections_per_client: 2}",
			[]string{"f.yaml:2: document 1 (Listener): limits.connections_per_client: is given twice, as connectionsPerClient and as connections_per_client"}},
		"two fields of a oneof": {"kind: TrustBundle\npem: x\nsystem: {}",
			[]string{"f.yaml:3: document 1 (TrustBundle): system: cannot be combined with pem"}},
		"missing kind": {"name: a", []string{"f.yaml:1: document 1 (a): kind: is missing; must be one of Listener, Route,"}},
		"unknown kind": {"kind: Upsteam\nname: a",
			[]string{`f.yaml:1: document 1 (a): kind: "Upsteam" is not a kind; must be one of Listener, Route, Upstream, Certificate, TrustBundle; did you mean Upstream?`}},
		"same name twice": {"kind: Listener\nname: a\n---\nkind: Upstream\nname: a\n---\nkind: listener\nname: a",
			[]string{"f.yaml:7: document 3 (Listener a): name: the same Listener is already at f.yaml:1"}},
		"not a mapping":                  {"hello", []string{`f.yaml:1: document 1: must be a resource: kind, name and further fields, not "hello"`}},
		"a list in a field for a string": {"kind: Listener\nupstream: [a]", []string{"f.yaml:2: document 1 (Listener): upstream: must be a string, not a list"}},
		"a string in a field for a list": {"kind: Route\nlisteners: web", []string{`f.yaml:2: document 1 (Route): listeners: must be a list, not "web"`}},
		"null list":                      {"kind: Route\nlisteners:", []string{"f.yaml:2: document 1 (Route): listeners: has no value; write [] or leave it out"}},
		"null scalar":                    {"kind: Route\nname: ~", []string{"f.yaml:2: document 1 (Route ~): name: has no value"}},
		"duration":                       {"kind: Listener\ntimeouts: {idle: 30}", []string{"f.yaml:2: document 1 (Listener): timeouts.idle: must be a duration such as 30s, 1.5s or 2m, not 30"}},
		"YAML syntax":                    {"kind: Listener\n---\nkind: x: y", []string{"f.yaml:3: document 2: mapping values are not allowed"}},
		"alias to itself":                {"kind: Upstream\nlabels: &a {x: *a}", []string{"f.yaml:2: document 1: nested more than 64 levels deep"}},
		"unknown alias":                  {"kind: *x", []string{"f.yaml: document 1: an alias (*) without an anchor"}},
		"mapping as key":                 {"{a: 1}: 2", []string{"f.yaml:1: document 1: a field's name must be a word, not a mapping"}},
		"merge of a word":                {"kind: Listener\n<<: x", []string{`f.yaml:2: document 1: <<: must be a mapping to merge, not "x"`}},
		"control characters are escaped": {"kind: \"a\\e[31m\\n\"", []string{`f.yaml:1: document 1: kind: "a\x1b[31m\n" is not a kind`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tt.text)
			faults, ok := errors.AsType[Faults](err)
			if !ok || len(faults) != len(tt.want) {
				t.Fatalf("got %d faults, want %d:\n%v", len(faults), len(tt.want), err)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(faults[i].String(), want) {
					t.Errorf("got  %s\nwant %s", faults[i], want)
				}
			}
		})
	}
}

func TestFaultsOfJSONSyntaxNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"{\"kind\": \"Listener\",\n \"name\" 3}":              "f.JSON:2: document 1: invalid character '3' after object key",
		"{\"kind\": \"Listener\"}\n\n{\"kind\": \"Listener\"": "f.JSON:3: document 2: ends in the middle of a value",
		"kind: Listener": "f.JSON:1: document 1: invalid character 'k'",
		"{\n]":           "f.JSON:2: document 1: invalid character ']'",
	} {
		_, err := Parse(Source{Name: "f.JSON", Data: []byte(text)})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestFaultsDoNotQuotePossibleKeys(t *testing.T) {
	secret := strings.Repeat("secret", 20)
	for text, want := range map[string]string{
		"kind: Certificate\nname: a\npem: " + secret:                         "pem: must be a mapping of fields, not a string of 120 bytes",
		"kind: Certificate\nname: a\n" + secret + ": x":                      "(a name of 120 bytes): no such field",
		"kind: Certificate\nname: a\npem: -----BEGIN PRIVATE KEY-----":       "pem: must be a mapping of fields, not \"(left out",
		"kind: Certificate\nname: a\nfiles: {a: 1, |\n  " + secret + "\n}":   "f.yaml",
		"kind: Certificate\nname: a\n-----BEGIN PRIVATE KEY-----\n" + secret: "f.yaml",
	} {
		_, err := parse(text)
		if err == nil || strings.Contains(err.Error(), "secretsecret") || strings.Contains(err.Error(), "PRIVATE") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v", err)
		}
	}
}

func TestNoSecretIsRepeatedHoweverShort(t *testing.T) {
	for text, want := range map[string]string{
		"pem: {passphrase: 4711}":            "f.yaml:3: document 1 (Certificate a): pem.passphrase: must be a string, in quotes",
		"pem: {passphrase: [4711]}":          "pem.passphrase: must be a string, in quotes",
		"pem: {passphrase: !4711 x}":         "pem.passphrase: must be a string, in quotes",
		"pem: {privateKey: 4711}":            "pem.privateKey: must be a string, in quotes",
		"pkcs12: {passphrase: 4711}":         "pkcs12.passphrase: must be a string, in quotes",
		"pkcs12: {data: \"4711 not it\"}":    "pkcs12.data: must be base64",
		"pkcs12: {data: 4711}":               "pkcs12.data: must be base64",
		"pem: {passphrase: *4711}":           "must be in quotes",
		"pkcs12: {passphrase: \"a\\q4711\"}": "unknown escape character",
	} {
		_, err := parse("kind: Certificate\nname: a\n" + text)
		if err == nil || strings.Contains(err.Error(), "4711") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestAnArchiveIsBase64(t *testing.T) {
	for _, text := range []string{
		`pkcs12: {data: "+/+/+/8="}`, `pkcs12: {data: -_-_-_8}`, `pkcs12: {data: !!binary "+/+/+/8="}`,
		"pkcs12:\n  data: |\n    +/+/\n    +/8=\n",
	} {
		same(t, "kind: Certificate\nname: a\n"+text, `certificate { name: "a" pkcs12 { data: "\373\377\277\373\377" } }`)
	}
	same(t, `{"kind": "Certificate", "name": "a", "pkcs12": {"data": "", "passphrase": "x"}}`, `certificate { name: "a" pkcs12 { passphrase: "x" } }`)
}

func TestEveryPathStartsAtItsFile(t *testing.T) {
	same(t, "kind: Certificate\nname: a\nfiles: {certificatePath: a.p12, passphrasePath: ../pass}\n---\n"+
		"kind: Certificate\nname: b\nfiles: {certificatePath: /b.pem, privateKeyPath: sub/b.key}\n---\n"+
		"kind: TrustBundle\nname: t\nfile: ca.pem\ncrls: [{file: one.crl}, {pem: inline}, {file: /two.crl}]",
		`certificate { name: "a" files { certificate_path: "/etc/db/a.p12" passphrase_path: "/etc/pass" } }`,
		`certificate { name: "b" files { certificate_path: "/b.pem" private_key_path: "/etc/db/sub/b.key" } }`,
		`trust_bundle { name: "t" file: "/etc/db/ca.pem" crls { file: "/etc/db/one.crl" } crls { pem: "inline" } crls { file: "/two.crl" } }`)
}

func TestHostileFilesAreBounded(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		prev := "*l" + string(rune('a'+i-2))
		if i == 1 {
			prev = "*l0"
		}
		laughs.WriteString("l" + string(rune('a'+i-1)) + ": &l" + string(rune('a'+i-1)) + " [" + strings.Repeat(prev+", ", 10) + "]\n")
	}
	for name, tt := range map[string]struct{ text, want string }{
		"billion laughs": {laughs.String(), "aliases stand for more than 100000 values"},
		"deep YAML":      {"kind: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "nested more than 64 levels"},
		"deep JSON":      {`{"kind": ` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}", "nested more than 64 levels"},
		"too large":      {strings.Repeat("#", MaxSize+1), "larger than 128 MiB"},
		"many faults":    {"kind: Listener\n" + strings.Repeat("---\nkind: x\n", 500), "and 400 more"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestLocateTranslatesPathsOfTheRequest(t *testing.T) {
	m, err := parse(`kind: Listener
name: web
---
kind: Upstream
name: up
endpoints:
- address: a:1
- address: b
  weight: 2
tls:
  cipher_suites:
  - nope
labels:
  a.b: c
`)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"resources[1].upstream.endpoints[1].address": "f.yaml:8: document 2 (Upstream up): endpoints[1].address",
		"resources[1].upstream.endpoints[0].weight":  "f.yaml:7: document 2 (Upstream up): endpoints[0].weight",
		"resources[1].upstream.tls.cipher_suites[0]": "f.yaml:12: document 2 (Upstream up): tls.cipher_suites[0]",
		"resources[1].upstream.tls.verify_depth":     "f.yaml:10: document 2 (Upstream up): tls.verifyDepth",
		"resources[1].upstream.pool.max_idle":        "f.yaml:4: document 2 (Upstream up): pool.maxIdle",
		`resources[1].upstream.labels["a.b"]`:        "f.yaml:14: document 2 (Upstream up): labels.a.b",
		"resources[0].listener.timeouts.header_read": "f.yaml:1: document 1 (Listener web): timeouts.headerRead",
		"resources[0]":          "f.yaml:1: document 1 (Listener web): ",
		"resources[0].listener": "f.yaml:1: document 1 (Listener web): ",
		"resources[1].upstream.endpoints[7].certi[3].": "f.yaml:6: document 2 (Upstream up): endpoints[7].certi[3]",
	} {
		place, field, ok := m.Locate(path)
		if got := place.String() + ": " + field; !ok || got != want {
			t.Errorf("%s\n got %q\nwant %q", path, got, want)
		}
	}
	for _, path := range []string{"", "deletes[0].name", "resources", "resources[2].x", "resources[-1]", "resources[x]"} {
		if place, field, ok := m.Locate(path); ok {
			t.Errorf("%s located at %v %s", path, place, field)
		}
	}
}

func TestLoadReadsFilesDirectoriesAndStdin(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.yaml":   "kind: TrustBundle\nname: b\nfile: ca.pem",
		"a.json":   `{"kind": "TrustBundle", "name": "a", "system": {}}`,
		"c.yml":    "kind: TrustBundle\nname: c\nsystem: {}",
		"skip.txt": "not ours",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := Load(strings.NewReader("kind: TrustBundle\nname: z\nfile: x.pem"), dir, "-")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range m.Documents {
		names = append(names, d.Place.Name)
	}
	if got := strings.Join(names, " "); got != "a b c z" {
		t.Errorf("read %s", got)
	}
	if got, want := m.Documents[1].Resource.GetTrustBundle().GetFile(), filepath.Join(dir, "ca.pem"); got != want {
		t.Errorf("file is %s, want %s", got, want)
	}
	cwd, _ := os.Getwd()
	if got, want := m.Documents[3].Resource.GetTrustBundle().GetFile(), filepath.Join(cwd, "x.pem"); got != want {
		t.Errorf("file from stdin is %s, want %s", got, want)
	}

	_, err = Load(nil, filepath.Join(dir, "none.yaml"), t.TempDir(), filepath.Join(dir, "skip.txt"))
	faults, _ := errors.AsType[Faults](err)
	if len(faults) != 3 || !strings.Contains(err.Error(), "no such file") || !strings.Contains(err.Error(), "holds no *.yaml") {
		t.Errorf("got %v", err)
	}
}

func TestKindNamesAreParsedInEveryForm(t *testing.T) {
	for s, want := range map[string]adminv1.Kind{
		"listener": adminv1.Kind_KIND_LISTENER, "Listeners": adminv1.Kind_KIND_LISTENER, "ROUTE": adminv1.Kind_KIND_ROUTE,
		"trustbundle": adminv1.Kind_KIND_TRUST_BUNDLE, "trust-bundles": adminv1.Kind_KIND_TRUST_BUNDLE,
		"TrustBundle": adminv1.Kind_KIND_TRUST_BUNDLE, "trust_bundle": adminv1.Kind_KIND_TRUST_BUNDLE,
	} {
		if got, err := ParseKind(s); got != want || err != nil {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	if _, err := ParseKind("certs"); err == nil {
		t.Error("certs is accepted as a kind")
	}
}
