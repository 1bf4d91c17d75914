package gateway

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestEachKindOfConnectionIsDescribed(t *testing.T) {
	w := newConnWorld(t)
	revision := w.State().Revision()
	for kind, want := range map[string]struct {
		protocol           adminv1.ConnectionProtocol
		state              adminv1.ConnectionPhase
		upstream, endpoint string
		secure, server     bool
	}{
		"tcp":      {adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_TCP, adminv1.ConnectionPhase_CONNECTION_PHASE_ACTIVE, "up", w.echo, true, true},
		"http/1.1": {adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_HTTP_1, adminv1.ConnectionPhase_CONNECTION_PHASE_IDLE, "site", w.server, true, false},
		"http/2":   {adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_HTTP_2, adminv1.ConnectionPhase_CONNECTION_PHASE_IDLE, "site", w.server, true, false},
		"tunnel":   {adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_TUNNEL, adminv1.ConnectionPhase_CONNECTION_PHASE_ACTIVE, "site", w.server, false, true},
	} {
		t.Run(strings.ReplaceAll(kind, "/", " "), func(t *testing.T) {
			p := w.must(kind)
			// The client may have the response before the gateway has finished the
			// request.
			eventually(t, "the connection has the expected state", func() bool { return w.of(p).GetState() == want.state })
			c := w.of(p)
			if c.GetProtocol() != want.protocol || c.GetUpstream() != want.upstream || c.GetEndpoint() != want.endpoint || c.GetRevision() != revision || c.GetDraining() {
				t.Errorf("it is %v", c)
			}
			client := c.GetClient()
			if client.GetLocalAddress() != p.raw.RemoteAddr().String() || client.GetAnnouncedAddress() != "" {
				t.Errorf("its client is %v", client)
			}
			if (client.GetTls() != nil) != want.secure || want.secure && (client.GetTls().GetVersion() != adminv1.TlsVersion_TLS_VERSION_1_3 ||
				client.GetTls().GetServerName() != "front.example" || client.GetTls().GetPeer().GetSha256Fingerprint() != w.client || client.GetTls().GetPeer().GetSubject() != "CN=alice") {
				t.Errorf("its client's TLS is %v", client.GetTls())
			}
			if (c.GetServer() != nil) != want.server || want.server && c.GetServer().GetRemoteAddress() != want.endpoint {
				t.Errorf("its server is %v", c.GetServer())
			}
			if kind == "tcp" && (c.GetServer().GetTls().GetOwnSha256Fingerprint() != w.own || c.GetServer().GetTls().GetPeer() == nil) {
				t.Errorf("its server's TLS is %v", c.GetServer().GetTls())
			}
			if kind == "tunnel" && c.GetUpgrade() != "echo" {
				t.Errorf("the connection was upgraded to %q", c.GetUpgrade())
			}
			before := client.GetBytesReceived()
			if err := p.uses(); err != nil {
				t.Fatal(err)
			}
			if client.BytesReceived != nil {
				if after := w.of(p).GetClient().GetBytesReceived(); after <= before {
					t.Errorf("%d bytes received, after %d before an exchange", after, before)
				}
			}
			if err := p.raw.Close(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "its end", func() bool { return w.of(p) == nil })
		})
	}
	// The pooled connection to the HTTP server belongs to no client.
	var pooled []*adminv1.Connection
	eventually(t, "the pooled connections are idle", func() bool {
		pooled = w.list(&adminv1.ConnectionFilter{Upstreams: []string{"site"}})
		return len(pooled) > 0 && !slices.ContainsFunc(pooled, func(c *adminv1.Connection) bool {
			return c.GetClient() != nil || c.GetState() != adminv1.ConnectionPhase_CONNECTION_PHASE_IDLE
		})
	})
	for _, c := range pooled {
		if c.GetListener() != "" || c.GetServer().GetRemoteAddress() != w.server {
			t.Errorf("pooled: %v", c)
		}
	}
}

func TestARequestInProgressIsCounted(t *testing.T) {
	w := newConnWorld(t)
	c := dial(t, w.address("plain"))
	done := make(chan error, 1)
	go func() { done <- exchange1(c, c.r, "/held") }()
	active := func(c *adminv1.Connection) bool {
		return c.GetState() == adminv1.ConnectionPhase_CONNECTION_PHASE_ACTIVE && c.GetRequestsInFlight() == 1 && c.GetUpstream() == "site"
	}
	eventually(t, "both its connections are active", func() bool {
		all := w.list(nil)
		return len(all) == 2 && active(all[0]) && active(all[1])
	})
	close(w.released)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually(t, "both are idle", func() bool {
		return !slices.ContainsFunc(w.list(nil), func(c *adminv1.Connection) bool {
			return c.GetState() != adminv1.ConnectionPhase_CONNECTION_PHASE_IDLE
		})
	})
}

// A client that has not completed its handshake is listed too.
func TestAHandshakeInProgressIsListed(t *testing.T) {
	w := newConnWorld(t)
	p := &peer{local: dial(t, w.address("web")).LocalAddr().String()}
	eventually(t, "the handshake is listed", func() bool { return w.of(p).GetState() == adminv1.ConnectionPhase_CONNECTION_PHASE_HANDSHAKE })
}

func TestFiltersSelectConnections(t *testing.T) {
	w := newConnWorld(t)
	w.put(plainUpstream("other", w.server)) // creates an earlier revision
	peers := map[string]*peer{}
	for _, kind := range peerKinds {
		peers[kind] = w.must(kind)
	}
	eventually(t, "all have made their exchange", func() bool {
		return !slices.ContainsFunc(w.list(nil), func(c *adminv1.Connection) bool { return c.GetClient() != nil && c.GetEndpoint() == "" })
	})
	tunnel := w.of(peers["tunnel"])
	now := w.State().Revision()
	w.put(plainUpstream("later", w.server))
	day := durationpb.New(24 * time.Hour)
	for name, c := range map[string]struct {
		filter *adminv1.ConnectionFilter
		kinds  string // kinds of the clients that the filter selects
	}{
		"no filter":                 {nil, "http/1.1 http/2 tcp tunnel"},
		"a listener":                {&adminv1.ConnectionFilter{Listeners: []string{"web"}}, "http/1.1 http/2"},
		"either listener":           {&adminv1.ConnectionFilter{Listeners: []string{"db", "plain"}}, "tcp tunnel"},
		"an upstream":               {&adminv1.ConnectionFilter{Upstreams: []string{"site"}}, "http/1.1 http/2 tunnel"},
		"an endpoint":               {&adminv1.ConnectionFilter{Endpoints: []string{w.echo}}, "tcp"},
		"a route":                   {&adminv1.ConnectionFilter{Routes: []string{"none"}}, ""},
		"an address":                {&adminv1.ConnectionFilter{ClientAddresses: []string{"127.0.0.1"}}, "http/1.1 http/2 tcp tunnel"},
		"a prefix":                  {&adminv1.ConnectionFilter{ClientAddresses: []string{"10.0.0.0/8", "::/0"}}, ""},
		"an identity":               {&adminv1.ConnectionFilter{ClientIdentities: []string{"CN=alice"}}, "http/1.1 http/2 tcp"},
		"another identity":          {&adminv1.ConnectionFilter{ClientIdentities: []string{"CN=bob", "spiffe://corp/alice"}}, ""},
		"the client's fingerprint":  {&adminv1.ConnectionFilter{Sha256Fingerprints: []string{strings.ToUpper(w.client)}}, "http/1.1 http/2 tcp"},
		"the gateway's fingerprint": {&adminv1.ConnectionFilter{Sha256Fingerprints: []string{w.own}}, "tcp"},
		"an ID":                     {&adminv1.ConnectionFilter{Ids: []string{tunnel.GetId()}}, "tunnel"},
		"an ID and another":         {&adminv1.ConnectionFilter{Ids: []string{tunnel.GetId()}, Listeners: []string{"db"}}, ""},
		"the revision":              {&adminv1.ConnectionFilter{MinRevision: now, MaxRevision: now}, "http/1.1 http/2 tcp tunnel"},
		"earlier revisions":         {&adminv1.ConnectionFilter{MaxRevision: now - 1}, ""},
		"later revisions":           {&adminv1.ConnectionFilter{MinRevision: now + 1}, ""},
		"old connections":           {&adminv1.ConnectionFilter{MinAge: day}, ""},
		"young connections":         {&adminv1.ConnectionFilter{MaxAge: day}, "http/1.1 http/2 tcp tunnel"},
	} {
		selected := map[string]bool{}
		for _, found := range w.list(c.filter) {
			for kind, p := range peers {
				if found.GetClient().GetRemoteAddress() == p.local {
					selected[kind] = true
				}
			}
		}
		if got := strings.Join(slices.Sorted(maps.Keys(selected)), " "); got != c.kinds {
			t.Errorf("%s: it selects %q, want %q", name, got, c.kinds)
		}
	}
}

func TestFaultsOfAFilterAreReportedTogether(t *testing.T) {
	w := newConnWorld(t)
	err := w.EachConnection(&adminv1.ConnectionFilter{
		Ids: []string{"-"}, ClientAddresses: []string{"10.0.0.0/8", "ten"}, ClientIdentities: []string{"DNS:"}, Sha256Fingerprints: []string{"ab"},
		MinRevision: -1, MinAge: durationpb.New(-1),
	}, 0, nil)
	for _, field := range []string{"connection_filter.ids[0]", "connection_filter.client_addresses[1]", "connection_filter.client_identities[0]", "connection_filter.sha256_fingerprints[0]", "connection_filter.min_age", "negative revision"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
}

// While connections of all kinds open and close, the list holds every connection that
// stays open exactly once. The list contains a connection that the kernel has dropped
// only until the gateway notices the peer's reset. At the end both are equal.
func TestTheListAgreesWithTheKernelUnderChurn(t *testing.T) {
	if kernelSockets(t) == nil {
		t.Skip("there is neither ss nor /proc/net/tcp")
	}
	w := newConnWorld(t)
	var stay []*peer
	for _, kind := range slices.Concat(peerKinds, peerKinds) {
		stay = append(stay, w.must(kind))
	}
	stop := make(chan struct{})
	var churn sync.WaitGroup
	for _, kind := range peerKinds {
		churn.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p, err := w.connect(kind)
				if err != nil {
					t.Error(kind, err)
					return
				}
				p.raw.Close()
			}
		})
	}
	reset := map[string]bool{} // by ID
	for range 5 {
		begun := time.Now()
		before := kernelSockets(t)
		found := map[string]int{}
		for _, c := range w.list(nil) {
			for _, pair := range pairsOf(c) {
				found[pair]++
				if c.GetStartTime().AsTime().Before(begun) && !before[pair] {
					reset[c.GetId()] = true
				}
			}
		}
		for _, p := range stay {
			if n := found[p.raw.RemoteAddr().String()+" "+p.local]; n != 1 {
				t.Errorf("a %s connection that stays open is listed %d times", p.kind, n)
			}
		}
	}
	eventually(t, "connections that the kernel has dropped leave the list", func() bool {
		return !slices.ContainsFunc(w.list(nil), func(c *adminv1.Connection) bool { return reset[c.GetId()] })
	})
	close(stop)
	churn.Wait()
	var listed, known map[string]bool
	ours := func(pair string) bool {
		local, remote, _ := strings.Cut(pair, " ")
		return local == w.address("db") || local == w.address("web") || local == w.address("plain") || remote == w.echo || remote == w.server
	}
	defer func() {
		if t.Failed() {
			t.Errorf("listed: %v\nthe kernel's: %v", slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(known)))
		}
	}()
	eventually(t, "the list equals the kernel's", func() bool {
		listed, known = map[string]bool{}, kernelSockets(t)
		for _, c := range w.list(nil) {
			for _, pair := range pairsOf(c) {
				listed[pair] = true
			}
		}
		maps.DeleteFunc(known, func(pair string, established bool) bool { return !established || !ours(pair) })
		return maps.Equal(listed, known)
	})
	for _, p := range stay {
		if err := p.uses(); err != nil {
			t.Error(p.kind, err)
		}
	}
}

// pairsOf returns the gateway's sockets of a connection, as "local remote".
func pairsOf(c *adminv1.Connection) []string {
	var out []string
	for _, s := range []*adminv1.ConnectionSide{c.GetClient(), c.GetServer()} {
		if s != nil {
			out = append(out, s.GetLocalAddress()+" "+s.GetRemoteAddress())
		}
	}
	return out
}
