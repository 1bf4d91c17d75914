package gateway

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
	"github.com/drawbridge-gateway/drawbridge/gateway/telemetry"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var shownMetric = regexp.MustCompile(`(?m)^# TYPE drawbridge_(\w+) (\w+)$`)

func TestEveryMetricIsInTheReference(t *testing.T) {
	var text string
	var shown map[string]string // types by name
	read := everyMetric(t)
	for end := time.Now().Add(deadline); ; { // a histogram may be published a moment after its event
		text, shown = read(), map[string]string{}
		for _, m := range shownMetric.FindAllStringSubmatch(text, -1) {
			shown[m[1]] = m[2]
		}
		if missing(shown) == 0 || time.Now().After(end) {
			break
		}
	}
	for _, group := range telemetry.Table {
		if group.Title == "The fleet" && !etcdtest.Installed() {
			continue
		}
		for _, m := range group.Metrics {
			if shown[m.Name] != m.Type {
				t.Errorf("%s is a %q in /metrics, and a %s in the reference", m.Name, shown[m.Name], m.Type)
			}
			delete(shown, m.Name)
		}
	}
	if len(shown) > 0 {
		t.Errorf("the reference lacks %v", shown)
	}
	if want := "# HELP drawbridge_bridge_conn_open Open connections.\n"; !strings.Contains(text, want) {
		t.Errorf("/metrics has no help text %q", want)
	}
}

// missing returns how many metrics of the reference are not shown.
func missing(shown map[string]string) (n int) {
	for _, group := range telemetry.Table {
		for _, m := range group.Metrics {
			if shown[m.Name] == "" && (group.Title != "The fleet" || etcdtest.Installed()) {
				n++
			}
		}
	}
	return n
}

// everyMetric returns a function that reads /metrics of a gateway after each kind of event
// that a metric counts.
func everyMetric(t *testing.T) func() string {
	ca := certstest.NewCA(t)
	front := ca.Server(t, "front.example")
	g := start(t, "", func(o *Options) {
		o.AccessLog.Output = io.Discard
		o.LogDropped = func() uint64 { return 0 }
		if etcdtest.Installed() {
			inFleet(t, etcdtest.Start(t, 1))(o)
		}
	})
	tls := tcpListener("tls", "127.0.0.1:0")
	tls.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g.put(append(bridgeTo(t, ca, "127.0.0.1:1"), tls, httpListener("http", "127.0.0.1:0"),
		inlineCertificate("front", front))...)

	// The certificate of this upstream is from another CA, and is accepted anyway.
	foreign := certstest.NewCA(t)
	lax := tcpListener("lax", "127.0.0.1:0")
	lax.Upstream = "lax"
	g.put(lax, &adminv1.Upstream{Name: "lax", Pool: &adminv1.Pool{Warm: 1}, Endpoints: []*adminv1.Endpoint{{Address: echo(t, ca, foreign.Server(t, "up.example"))}},
		Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{Certificate: "client", TrustBundles: []string{"corp"}, VerifyName: "up.example",
			Verification: adminv1.Verification_VERIFICATION_REPORT_ONLY}}})
	c := dial(t, g.address("lax"))
	c.echo(t, "let through")
	strict := proto.Clone(g.State().Get(adminv1.Kind_KIND_UPSTREAM, "lax")).(*adminv1.Upstream)
	strict.GetTls().Verification = adminv1.Verification_VERIFICATION_FULL
	g.put(strict)
	eventually(t, "its connection no longer verifies", func() bool {
		lax, _ := g.live.Load().Upstream("lax")
		return lax.Tracker.Peers().Counts().Ended["UNKNOWN_CA"] > 0
	})
	locked := proto.Clone(lax).(*adminv1.Listener)
	locked.Tls = &adminv1.ServerTls{Certificates: []string{"front"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"corp"}}
	g.put(locked)
	eventually(t, "its client, in plaintext, no longer verifies", func() bool {
		return g.clientsEnded("CLIENT_CERTIFICATE_REQUIRED") > 0
	})
	c.Close()

	g.put(&adminv1.Upstream{Name: "named", HealthCheck: &adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Tcp{Tcp: &adminv1.TcpCheck{}}}, Dns: &adminv1.Dns{Hostname: "localhost", Port: 1}})
	eventually(t, "the name resolves", func() bool {
		named, _ := g.live.Load().Upstream("named")
		return len(named.Live.Endpoints()) > 0
	})

	announced := tcpListener("announced", "127.0.0.1:0")
	announced.AcceptProxyProtocol = &adminv1.AcceptProxyProtocol{TrustedSources: []string{"127.0.0.1"}}
	g.put(announced)
	sendGarbage(t, g.address("announced"))

	get(t, "http://"+g.address("http")+"/") // no server listens at the upstream's address
	answering := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	t.Cleanup(answering.Close)
	plain := httpListener("plain", "127.0.0.1:0")
	plain.Upstream = "plain"
	g.put(plain, plainUpstream("plain", answering.Listener.Addr().String()))
	get(t, "http://"+g.address("plain")+"/")
	sendGarbage(t, g.address("tls"))
	callAdmin(t, g.AdminAddress())
	return func() string {
		_, text := get(t, "http://"+g.OpsAddress()+"/metrics")
		return text
	}
}

// sendGarbage sends bytes that are neither TLS nor a PROXY protocol header, and
// waits until the gateway has rejected them.
func sendGarbage(t *testing.T, address string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(deadline))
	io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
	io.Copy(io.Discard, c)
}

func callAdmin(t *testing.T, address string) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := adminv1.NewStatusServiceClient(conn).GetStatus(t.Context(), &adminv1.GetStatusRequest{}); err != nil {
		t.Fatal(err)
	}
}
