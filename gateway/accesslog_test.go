package gateway

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Connections and requests appear in the histograms and in the access log. A
// listener whose access log is off writes no records.
func TestDurationsAndRecords(t *testing.T) {
	ca := certstest.NewCA(t)
	path := filepath.Join(t.TempDir(), "access.log")
	g := start(t, "", func(o *Options) { o.AccessLog.File = path })
	web := httpListener("web", "127.0.0.1:0")
	g.put(append(bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example"))), tcpListener("db", "127.0.0.1:0"), web)...)
	c := dial(t, g.address("db"))
	c.echo(t, "hello")
	c.Close()
	stop := func() { // stop ends the gateway; afterward the log is complete
		eventually(t, "all requests and connections have ended", func() bool { return g.listener("db").GetConnections()+g.listener("web").GetConnections() == 0 })
	}
	stop()
	get(t, "http://"+g.address("web")+"/one") // the upstream echoes the request, which is not a valid response
	stop()
	web.AccessLog = adminv1.AccessLog_ACCESS_LOG_OFF
	g.put(web)
	get(t, "http://"+g.address("web")+"/two")

	stop()
	_, text := get(t, "http://"+g.OpsAddress()+"/metrics")
	for _, want := range []string{
		`drawbridge_bridge_conn_duration_seconds_count{listener="db"} 1`,
		`drawbridge_bridge_conn_first_byte_seconds_count{listener="db"} 1`,
		`drawbridge_bridge_conn_first_byte_seconds_bucket{listener="db",le="+Inf"} 1`,
		`drawbridge_bridge_http_duration_seconds_count{code="5xx",listener="web"} 2`,
		`drawbridge_upstream_dial_duration_seconds_count{phase="tcp",upstream="up"} 3`,
		`drawbridge_upstream_dial_duration_seconds_count{phase="tls",upstream="up"} 3`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("there is no %s in\n%s", want, regexp.MustCompile(`(?m)^drawbridge_\w+_count.*$`).FindAllString(text, -1))
		}
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	records, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(records)), "\n"); len(lines) != 2 ||
		!strings.Contains(lines[0], `"kind":"connection"`) || !strings.Contains(lines[0], `"listener":"db"`) ||
		!strings.Contains(lines[1], `"path":"/one"`) || !strings.Contains(lines[1], `"reason":"RESPONSE_BROKEN"`) {
		t.Errorf("the access log:\n%s", records)
	}
}

func TestTheAccessLogIsReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	g := start(t, "", func(o *Options) { o.AccessLog = AccessLog{File: path, Text: true} })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := g.ReopenAccessLog(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if err := start(t, "").ReopenAccessLog(t.Context()); err != nil {
		t.Errorf("without one: %v", err)
	}
	if _, err := Open(t.Context(), Options{DataDir: t.TempDir(), AccessLog: AccessLog{File: filepath.Join(path, "x")}}); err == nil || !strings.Contains(err.Error(), "access log: ") {
		t.Errorf("a path that cannot be a file: %v", err)
	}
}
