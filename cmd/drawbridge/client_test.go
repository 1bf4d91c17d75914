package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

func TestAConfigurationIsAppliedShownAndAppliedAgain(t *testing.T) {
	_, sh := serve(t)
	file := site(t)

	sh.run(t.Context(), "apply", "-f", file, "--dry-run").want(t, exit.OK, "created   TrustBundle   corp", "Dry run: revision 0 stays.")
	sh.run(t.Context(), "get", "listeners").want(t, exit.OK, "No listeners.")
	sh.run(t.Context(), "apply", "-f", file, "--comment", "first").want(t, exit.OK, "created   Route         v2", "Revision 1 is live.")
	sh.run(t.Context(), "apply", "-f", file).want(t, exit.OK, "Nothing to change: revision 1 is live")

	// The output is a configuration without the key. Applying it does not change
	// anything, not even the key.
	all := sh.run(t.Context(), "get", "all", "-o", "yaml")
	all.want(t, exit.OK, "kind: TrustBundle", "serverName: payments.test")
	for _, word := range []string{"etag", "revision", "info", "PRIVATE KEY"} {
		if strings.Contains(all.out, word) {
			t.Errorf("%q in get all:\n%s", word, all.out)
		}
	}
	again := sh
	again.in = all.out
	again.run(t.Context(), "apply", "-f", "-", "--prune").want(t, exit.OK, "Nothing to change: revision 1")
	again.in = sh.run(t.Context(), "get", "config", "-o", "json").out
	again.run(t.Context(), "apply", "-f", "-", "--prune").want(t, exit.OK, "Nothing to change: revision 1")
	again.in = sh.run(t.Context(), "get", "certificate", "front", "-o", "yaml").out
	again.run(t.Context(), "apply", "-f", "-").want(t, exit.OK, "Nothing to change: revision 1")

	again.in = strings.Replace(all.out, "prefix: /v2/", "prefix: /v3/", 1)
	again.run(t.Context(), "apply", "-f", "-").want(t, exit.OK, "updated   Route   v2", "Revision 2 is live (8 unchanged).")
}

func TestEachKindHasItsColumns(t *testing.T) {
	_, sh := serve(t)
	sh.run(t.Context(), "apply", "-f", site(t)).want(t, exit.OK)
	for kind, want := range map[string][]string{
		"listeners":    {`web +HTTP +127\.0\.0\.1:[1-9]\d* +plaintext +payments +up +0`, `secure +TCP +127\.0\.0\.1:[1-9]\d* +tls, client certificate required +plain +up +0`},
		"routes":       {`v2 +web +pay\.example\.com +/v2/\* +GET +forward payments:3,plain:1`, `old +web +- +/old +- +redirect 301`},
		"upstream":     {`payments +127\.0\.0\.1:9,127\.0\.0\.1:10 +tls +client +corp +2 not tried`, `plain +unix:/nowhere\.sock +plaintext +- +- +1 not tried`},
		"certificates": {`client +CN=gateway +.* +\d+ +ECDSA P-256 +files +[0-9a-f]{16}`, `front +.*DNS:front\.test +\d+ +ECDSA P-256 +pem +[0-9a-f]{16}`},
		"trust-bundle": {`corp +/.*/ca\.pem +1 +CN=test root.* +\d+`},
		"all":          {`(?m)^Revision 1$`, `(?m)^TRUST BUNDLES$`, `(?m)^ROUTES$`},
	} {
		r := sh.run(t.Context(), "get", kind)
		r.want(t, exit.OK)
		for _, w := range want {
			if !regexp.MustCompile(w).MatchString(r.out) {
				t.Errorf("get %s: no %s in\n%s", kind, w, r.out)
			}
		}
	}
	sh.run(t.Context(), "get", "listener", "web").want(t, exit.OK, "web")
	if out := sh.run(t.Context(), "get", "listener", "web").out; strings.Contains(out, "secure") {
		t.Errorf("get listener web shows other listeners:\n%s", out)
	}
}

func TestScriptsGetJSON(t *testing.T) {
	_, sh := serve(t)
	sh.run(t.Context(), "apply", "-f", site(t)).want(t, exit.OK)

	var one struct {
		Kind, Name, Etag string
		Info             struct{ Subject string }
	}
	r := sh.run(t.Context(), "get", "certificate", "client", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &one); err != nil || one.Kind != "Certificate" || one.Etag == "" || one.Info.Subject != "CN=gateway" {
		t.Errorf("%v in %s", err, r.out)
	}
	var list []struct{ Name string }
	r = sh.run(t.Context(), "get", "upstreams", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || len(list) != 2 || list[0].Name != "payments" {
		t.Errorf("%v in %s", err, r.out)
	}
	r = sh.run(t.Context(), "get", "routes", "-o", "json")
	if again := sh.run(t.Context(), "get", "routes", "-o", "json"); again.out != r.out {
		t.Errorf("the second output differs from the first:\n%s%s", r.out, again.out)
	}
	var status struct {
		Status struct {
			Listeners []struct{ BoundAddress string }
		}
		Upstreams []struct{ Endpoints []struct{ Health string } }
	}
	r = sh.run(t.Context(), "status", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &status); err != nil || len(status.Status.Listeners) != 2 || status.Upstreams[0].Endpoints[0].Health != "ENDPOINT_HEALTH_UNKNOWN" {
		t.Errorf("%v in %s", err, r.out)
	}
	sh.run(t.Context(), "status", "-o", "yaml").want(t, exit.OK, "status:\n  version:", "upstreams:\n  - name: payments")
	sh.run(t.Context(), "status").want(t, exit.OK, "revision 1, ready", "2 listeners, 2 routes, 2 upstreams, 2 certificates, 1 trust bundle", "not tried, backup")

	var change struct{ Revision, Changes any }
	r = sh.run(t.Context(), "delete", "route", "v2", "old", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &change); err != nil || change.Revision != "2" {
		t.Errorf("%v in %s", err, r.out)
	}
}

func TestErrorsOfARealGateway(t *testing.T) {
	_, sh := serve(t)
	file := site(t)
	sh.run(t.Context(), "apply", "-f", file).want(t, exit.OK)

	bad := writeFile(t, filepath.Dir(file), "bad.yaml", `kind: Upstream
name: payments
endpoints:
- address: nowhere
tls:
  certificate: missing
  minVersion: 1.3
  maxVersion: 1.2
`)
	sh.run(t.Context(), "apply", "-f", bad).want(t, exit.Invalid,
		bad+":4: document 1 (Upstream payments): endpoints[0].address: ",
		bad+":6: document 1 (Upstream payments): tls.certificate: ",
		"faults; nothing was changed")
	sh.run(t.Context(), "get", "upstream", "payments", "-o", "yaml").want(t, exit.OK, "127.0.0.1:9")

	sh.run(t.Context(), "get", "route", "none").want(t, exit.NotFound, `"none"`)
	sh.run(t.Context(), "delete", "route", "v2", "none").want(t, exit.NotFound, `"none"`)
	sh.run(t.Context(), "get", "route", "v2").want(t, exit.OK)
	sh.run(t.Context(), "delete", "upstream", "payments").want(t, exit.Conflict, "payments", "web")

	stale := writeFile(t, filepath.Dir(file), "stale.yaml", "kind: TrustBundle\nname: corp\netag: old\nsystem: {}\n")
	sh.run(t.Context(), "apply", "-f", stale).want(t, exit.Conflict, stale+":3: document 1 (TrustBundle corp): etag: ")
	empty := writeFile(t, filepath.Dir(file), "empty.yaml", "# nothing\n")
	sh.run(t.Context(), "apply", "-f", empty, "--prune").want(t, exit.Invalid, "would delete everything")
	if err := os.Remove(filepath.Join(filepath.Dir(file), "client.pem")); err != nil {
		t.Fatal(err)
	}
	sh.run(t.Context(), "apply", "-f", file).want(t, exit.Invalid, "document 2 (Certificate client): files.certificatePath: ", "no such file")
}

func TestWatchShowsEachChangeAsItIsMade(t *testing.T) {
	gw, sh := serve(t)
	table := start(t, sh.env, "watch")
	lines := start(t, sh.env, "watch", "-o", "json")
	docs := start(t, sh.env, "watch", "-o", "yaml")
	table.out.until(t, "revision 0      0 resources\n", 1)
	lines.out.until(t, "}\n", 1)
	docs.out.until(t, "---\n", 1)

	sh.run(t.Context(), "apply", "-f", site(t), "--comment", "the site").want(t, exit.OK)
	sh.run(t.Context(), "delete", "route", "old").want(t, exit.OK)
	table.out.until(t, "revision 1      created  Route v2   # the site\n", 1)
	table.out.until(t, "revision 2      deleted  Route old\n", 1)
	lines.out.until(t, "}\n", 3)
	docs.out.until(t, "---\n", 3)
	if code := table.stop(); code != exit.OK {
		t.Errorf("watch was interrupted and exits with %d", code)
	}
	for line := range strings.Lines(lines.out.String()) {
		var update struct{ Changes []any }
		if err := json.Unmarshal([]byte(line), &update); err != nil {
			t.Errorf("%v in %s", err, line)
		}
	}
	if strings.Contains(lines.out.String()+docs.out.String(), "PRIVATE KEY") {
		t.Error("a private key was shown")
	}

	if code := gw.stop(); code != exit.OK {
		t.Errorf("serve exits with %d", code)
	}
	lines.log.until(t, "Error: ", 1)
	if code := lines.stop(); code != exit.Unavailable {
		t.Errorf("the gateway is gone, and watch exits with %d: %s", code, lines.log)
	}
}

func TestWarningsNameTheFile(t *testing.T) {
	_, sh := serve(t)
	file := writeFile(t, t.TempDir(), "u.yaml", "kind: Upstream\nname: u\nendpoints: [{address: \"a:1\"}]\ntls:\n  verification: INSECURE_SKIP\n")
	r := sh.run(t.Context(), "apply", "-f", file, "-o", "yaml")
	r.want(t, exit.OK, "Warning: "+file+":5: document 1 (Upstream u): tls.verification: ")
	if !strings.HasPrefix(r.out, "revision: \"1\"\n") {
		t.Errorf("the output holds more than YAML:\n%s", r.out)
	}
}
