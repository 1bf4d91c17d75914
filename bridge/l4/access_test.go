package l4_test

import (
	"context"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
)

func addresses(t *testing.T, texts ...string) *cidr.Set {
	t.Helper()
	s, faults := cidr.Parse(texts)
	if faults != nil {
		t.Fatal(faults)
	}
	return s
}

// The listener closes a client without access and reads none of its bytes. Other
// clients are served as before.
func TestClientsWithoutAccess(t *testing.T) {
	upstreams := listen(t, "tcp")
	echo(t, upstreams, nil)
	for name, test := range map[string]struct {
		access *cidr.Access
		served bool
	}{
		"allowed":              {&cidr.Access{Allow: addresses(t, "127.0.0.0/8")}, true},
		"not allowed":          {&cidr.Access{Allow: addresses(t, "192.0.2.0/24", "::1")}, false},
		"denied":               {&cidr.Access{Deny: addresses(t, "127.0.0.1")}, false},
		"others are denied":    {&cidr.Access{Deny: addresses(t, "192.0.2.0/24")}, true},
		"allowed, then denied": {&cidr.Access{Allow: addresses(t, "0.0.0.0/0"), Deny: addresses(t, "127.0.0.1")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := serve(t, &l4.Table{Access: test.access, Default: to(group(plain(upstreams)))})
			if test.served {
				g.dial(t, nil).WantEcho(t, "hello")
			} else {
				g.wantRefused(t)
			}
			want := uint64(1)
			if test.served {
				want = 0
			}
			eventually(t, "the outcome is counted", func() bool { s := g.Stats(); return s.Denied == want && s.Accepted == 1-want && s.Rejected == 0 })
		})
	}
}

// Access lists do not apply to clients of a unix-domain socket, which have no address.
func TestUnixClientsHaveAccess(t *testing.T) {
	upstreams := listen(t, "tcp")
	echo(t, upstreams, nil)
	table := &l4.Table{Access: &cidr.Access{Allow: addresses(t, "192.0.2.1"), Deny: addresses(t, "0.0.0.0/0", "::/0")}, Default: to(group(plain(upstreams)))}
	open(t, "unix", l4.Options{Table: func() *l4.Table { return table }}).dial(t, nil).WantEcho(t, "hello")
}

// Access is decided by the announced client, not by the balancer.
func TestAnnouncedClientsWithoutAccess(t *testing.T) {
	upstreams := listen(t, "tcp")
	echo(t, upstreams, nil)
	table := &l4.Table{
		ProxyProtocol: trust(t, "127.0.0.1"), Default: to(group(plain(upstreams))),
		Access: &cidr.Access{Allow: addresses(t, "192.0.2.0/24"), Deny: addresses(t, "192.0.2.9")},
	}
	var log logtest.Buffer
	g := open(t, "tcp", l4.Options{Table: func() *l4.Table { return table }, Logger: debugLog(&log)})
	for _, test := range []struct {
		ip     string
		served bool
	}{{"192.0.2.1", true}, {"192.0.2.9", false}, {"198.51.100.1", false}} {
		c := g.dial(t, nil)
		c.Send(t, strings.Replace(announcement, "192.0.2.1", test.ip, 1))
		if test.served {
			c.WantEcho(t, "hello")
			c.Raw.Close()
			continue
		}
		c.WantEnd(t, "", reset)
	}
	c := g.dial(t, nil)
	c.Send(t, "PROXY UNKNOWN\r\n") // the balancer's own address, which has no access
	c.WantEnd(t, "", reset)
	g.Shutdown(context.Background())
	if s := g.Stats(); s.Denied != 3 || s.Open != 0 {
		t.Errorf("%+v", s)
	}
	if text := log.String(); strings.Count(text, `"ended":"no access"`) != 3 || !strings.Contains(text, `"client":"192.0.2.9:12345"`) {
		t.Errorf("log: %s", text)
	}
}
