package l4_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// garbage is not a TLS record.
const garbage = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"

// The reason for a connection's end names the side that caused it. Only failures of the
// upstream count for the endpoint and for outlier detection.
func TestStreamFailuresCountForTheSideThatFailed(t *testing.T) {
	p := newPKI(t)
	for _, c := range []struct {
		name    string
		end     func(t *testing.T, client, back *peer)
		want    record
		counted certs.Reason // the failure counted for the endpoint, or ""
		ejects  bool
	}{
		{"both end", func(t *testing.T, client, back *peer) {
			_ = client.CloseWrite()
			back.WantEnd(t, "", clean)
			_ = back.CloseWrite()
		}, record{"ended": "closed", "reason": nil}, "", false},
		{"client resets", func(t *testing.T, client, _ *peer) { client.Reset() },
			record{"ended": "client reset", "reason": "CLIENT_RESET"}, "", false},
		{"client truncates", func(t *testing.T, client, _ *peer) { client.Raw.Conn.Close() },
			record{"ended": "client truncated", "reason": "CLIENT_TRUNCATED"}, "", false},
		{"client sends garbage", func(t *testing.T, client, _ *peer) { fmt.Fprint(client.Raw.Conn, garbage) },
			record{"ended": "client failed", "reason": "CLIENT_FAILED"}, "", false},
		{"upstream resets", func(t *testing.T, _, back *peer) { back.Reset() },
			record{"ended": "upstream reset", "reason": "UPSTREAM_RESET"}, certs.ReasonUpstreamReset, true},
		{"upstream truncates", func(t *testing.T, _, back *peer) { back.Raw.Conn.Close() },
			record{"ended": "upstream truncated", "reason": "UPSTREAM_TRUNCATED"}, certs.ReasonUpstreamTruncated, false},
		{"upstream sends garbage", func(t *testing.T, _, back *peer) { fmt.Fprint(back.Raw.Conn, garbage) },
			record{"ended": "upstream failed", "reason": "UPSTREAM_FAILED"}, certs.ReasonUpstreamFailed, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const failures = 3
			back, spare := listen(t, "tcp"), listen(t, "tcp")
			first, second := over(t, back, p.upstream(t, "back.test")), over(t, spare, p.upstream(t, "back.test"))
			second.Backup = true
			u := upstream.New(upstream.Options{
				Name: "group", Endpoints: []upstream.EndpointOptions{first, second},
				Outliers: &upstream.OutlierOptions{Failures: failures, MaxPercent: 50},
			})
			t.Cleanup(u.Retire)
			g, end := recorded(t, l4.Options{Table: fixed(&l4.Table{TLS: p.listener(t, "front.test"), Default: to(u)})})
			for i := range failures {
				if s := u.Status()[0]; !s.Available {
					t.Fatalf("after %d connections: %s", i, s.Unavailable)
				}
				client := g.dial(t, p.client("front.test"))
				sent := make(chan error, 1)
				go func() {
					_, err := client.Write([]byte("ping"))
					sent <- err
				}()
				b := accept(t, back, p.server(t, "back.test"))
				b.Want(t, "ping")
				b.Send(t, "pong")
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				client.Want(t, "pong")
				c.end(t, client, b)
				eventually(t, "the connection has ended", func() bool { return g.Stats().Open == 0 })
			}
			all := end()
			if len(all) != failures {
				t.Fatalf("%d records", len(all))
			}
			for _, r := range all {
				r.want(t, c.want)
			}
			s := u.Status()[0]
			want := map[certs.Reason]uint64{}
			if c.counted != "" {
				want[c.counted] = failures
			}
			if !maps.Equal(s.Failures, want) {
				t.Errorf("failures of the endpoint: %v, want %v", s.Failures, want)
			}
			if s.Health != upstream.Up {
				t.Errorf("the endpoint's health is %v, although every connection to it succeeded", s.Health)
			}
			if s.Available == c.ejects {
				t.Errorf("available: %v (%s)", s.Available, s.Unavailable)
			}
		})
	}
}
