package gateway

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A keptTicket is a client's cache that offers its first ticket to every server.
type keptTicket struct {
	mu      sync.Mutex
	session *tls.ClientSessionState
}

func (k *keptTicket) Get(string) (*tls.ClientSessionState, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.session, k.session != nil
}

func (k *keptTicket) Put(_ string, s *tls.ClientSessionState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.session == nil {
		k.session = s
	}
}

// handshakes connects to a listener and reads from the connection, so that the client gets
// its ticket, or the alert.
func (g *testGateway) handshakes(listener string, config *tls.Config) (resumed bool, err error) {
	c, err := tls.Dial("tcp", g.address(listener), config)
	if err != nil {
		return false, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(deadline))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: front.example\r\nConnection: close\r\n\r\n")
	_, err = c.Read(make([]byte, 1))
	return c.ConnectionState().DidResume, err
}

// fleetOfTwo starts two gateways of a fleet, whose clocks are ahead by an offset in
// nanoseconds, and differ by five minutes.
func fleetOfTwo(t *testing.T, c *etcdtest.Cluster) (a, b *testGateway, offset *atomic.Int64) {
	t.Helper()
	offset = new(atomic.Int64)
	clock := func(skew time.Duration) func(*Options) {
		return func(o *Options) {
			o.now = func() time.Time { return time.Now().Add(time.Duration(offset.Load()) + skew) }
		}
	}
	return start(t, "", inFleet(t, c), clock(0)), start(t, "", inFleet(t, c), clock(5*time.Minute)), offset
}

// client returns the config of a client that offers its first ticket to every server, as if
// all servers had one name.
func client(t *testing.T, issued *pki.Issued, version uint16) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, ServerName: "front.example", ClientSessionCache: new(keptTicket), MaxVersion: version,
		Certificates: []tls.Certificate{certstest.TLS(t, issued)},
	}
}

func TestAClientResumesAtEveryGatewayUnderTheSamePolicyOnly(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a, b, offset := fleetOfTwo(t, c)
	ca := certstest.NewCA(t)
	cert, settings := frontTLS(t, ca, adminv1.ClientAuth_CLIENT_AUTH_REQUIRED)
	lax := proto.CloneOf(settings)
	lax.ClientAuth, lax.ClientTrustBundles = adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL, []string{"clients"}
	secure := func(name string, settings *adminv1.ServerTls) *adminv1.Listener {
		l := httpListener(name, "127.0.0.1:0")
		l.Tls = settings
		return l
	}
	web := secure("web", settings)
	a.put(bundle("clients", ca, ca.CRL(t)), cert, web, secure("lax", lax), secure("other", settings), plainUpstream("up", "127.0.0.1:1"))
	converge(t, 1, a, b)
	alice := ca.Client(t, "alice")
	expect := func(g *testGateway, listener string, config *tls.Config, want bool) {
		t.Helper()
		if resumed, err := g.handshakes(listener, config); resumed != want || err != nil {
			t.Errorf("%s, %s: resumed is %t, want %t; %v", tls.VersionName(config.MaxVersion), listener, resumed, want, err)
		}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		offset.Store(0)
		config := client(t, alice, version)
		expect(a, "web", config, false)
		expect(a, "web", config, true)
		expect(b, "web", config, true)
		for _, g := range []*testGateway{a, b} { // another policy: a full handshake
			expect(g, "lax", config, false)
			expect(g, "other", config, false)
			renamed := config.Clone()
			renamed.ServerName = "other.example"
			expect(g, "web", renamed, false)
		}
	}
	// A policy that comes back after another one resumes its own tickets again.
	config := client(t, alice, tls.VersionTLS13)
	expect(a, "web", config, false)
	stricter := proto.CloneOf(web)
	stricter.Tls.MinVersion = adminv1.TlsVersion_TLS_VERSION_1_3
	a.put(stricter)
	converge(t, 2, a, b)
	expect(b, "web", config, false)
	a.put(web)
	converge(t, 3, a, b)
	expect(b, "web", config, true)
	// A client that is revoked now is rejected, although its ticket decrypts.
	a.put(bundle("clients", ca, ca.CRL(t, alice.Leaf)))
	converge(t, 4, a, b)
	if resumed, err := b.handshakes("web", config); err == nil {
		t.Errorf("a revoked client connected; resumed is %t", resumed)
	}
	a.put(bundle("clients", ca, ca.CRL(t)))
	converge(t, 5, a, b)
	expect(b, "web", config, true)
	// Each rotation keeps the previous secrets.
	for day := range 3 {
		offset.Store(int64(time.Duration(day+1) * 25 * time.Hour))
		for _, g := range []*testGateway{a, b} {
			if err := g.fleet.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		expect(b, "web", config, true)
	}
	secrets := ticketSecrets(t, c)
	if len(secrets) != 4 {
		t.Errorf("%d secrets after 3 rotations", len(secrets))
	}
	status := b.Status().GetFleet()
	if status.GetTicketsTime() == nil || status.GetTicketsError() != "" {
		t.Errorf("the status of the fleet: %v", status)
	}
	// While the secrets in etcd are damaged, the gateways use those that they have.
	if _, err := c.Client().Put(t.Context(), "/drawbridge/tickets", "damaged"); err != nil {
		t.Fatal(err)
	}
	if err := b.fleet.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(b, "web", config, true)
	if status := b.Status(); status.GetFleet().GetTicketsError() == "" || !slices.ContainsFunc(status.GetWarnings(), func(w *adminv1.Warning) bool {
		return w.GetCode() == adminv1.WarningCode_WARNING_CODE_FLEET_TICKETS
	}) {
		t.Errorf("the secrets are damaged, and the status is %v", status)
	}
	// Without its secret a ticket is worth nothing, and the handshake is full.
	if _, err := c.Client().Delete(t.Context(), "/drawbridge/tickets"); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*testGateway{a, b} {
		if err := g.fleet.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	again := client(t, alice, tls.VersionTLS13)
	expect(a, "web", config, false)
	expect(b, "web", config, false)
	expect(a, "web", again, false)
	expect(b, "web", again, true)
	for _, secret := range append(secrets, ticketSecrets(t, c)...) {
		for _, g := range []*testGateway{a, b} {
			if strings.Contains(g.log.String()+g.Status().String(), base64.StdEncoding.EncodeToString(secret)) {
				t.Error("the log or the status holds a secret")
			}
		}
	}
}

// ticketSecrets reads the secrets of the fleet.
func ticketSecrets(t *testing.T, c *etcdtest.Cluster) (out [][]byte) {
	t.Helper()
	var o Options
	inFleet(t, c)(&o)
	o.Fleet.Etcd.Key = o.SealKey
	remote, err := etcd.Open(o.Fleet.Etcd)
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	head, err := remote.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	content, _, err := remote.Tickets(t.Context(), head)
	if err != nil {
		t.Fatal(err)
	}
	var all []struct{ Secret []byte }
	if err := json.Unmarshal(content, &all); err != nil || len(all) == 0 || len(all[0].Secret) != 32 {
		t.Fatalf("%d secrets, %v", len(all), err)
	}
	for _, one := range all {
		out = append(out, one.Secret)
	}
	return out
}

// A gateway that starts without etcd resumes the tickets of the others if it was a member
// before.
func TestTicketsAreResumedWithoutEtcd(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a, b, _ := fleetOfTwo(t, c)
	ca := certstest.NewCA(t)
	cert, settings := frontTLS(t, ca, adminv1.ClientAuth_CLIENT_AUTH_NONE)
	web := httpListener("web", "127.0.0.1:0")
	web.Tls = settings
	a.put(cert, web, plainUpstream("up", "127.0.0.1:1"))
	converge(t, 1, a, b)
	config := client(t, ca.Client(t, "alice"), tls.VersionTLS13)
	if resumed, err := a.handshakes("web", config); resumed || err != nil {
		t.Fatal(resumed, err)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	c.Kill(0)
	again := start(t, b.dir, func(o *Options) { inFleet(t, c)(o); o.Fleet.Etcd.Timeout = time.Second })
	if resumed, err := again.handshakes("web", config); !resumed || err != nil {
		t.Errorf("without etcd: resumed is %t; %v", resumed, err)
	}
	c.Run(0) // the gateways leave the fleet when they stop
	c.Await()
}
