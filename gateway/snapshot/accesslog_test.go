package snapshot

import (
	"testing"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Switching a listener's access log changes only its table: the session tickets
// of its clients stay valid.
func TestAccessLogOfAListener(t *testing.T) {
	w := newTestbed(t)
	web, db := listener("web", "127.0.0.1:1", httpP, "up"), listener("db", "127.0.0.1:2", tcp, "up")
	web.Tls = &adminv1.ServerTls{Certificates: []string{"server"}}
	db.Tls = proto.Clone(web.Tls).(*adminv1.ServerTls)
	w.put(w.bundle("trust"), w.server("server"), tlsUpstream("up", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}}), web, db)
	before := w.snap
	for _, c := range []struct {
		choice adminv1.AccessLog
		silent bool
	}{
		{adminv1.AccessLog_ACCESS_LOG_UNSPECIFIED, false}, {adminv1.AccessLog_ACCESS_LOG_OFF, true}, {adminv1.AccessLog_ACCESS_LOG_ON, false},
	} {
		web, db := proto.Clone(web).(*adminv1.Listener), proto.Clone(db).(*adminv1.Listener)
		web.AccessLog, db.AccessLog = c.choice, c.choice
		w.put(web, db)
		if h, l := w.snap.HTTP("web"), w.snap.TCP("db"); h.NoAccessLog != c.silent || l.NoAccessLog != c.silent {
			t.Errorf("%v: %v, %v", c.choice, h.NoAccessLog, l.NoAccessLog)
		} else if h.TLS != before.HTTP("web").TLS || l.TLS != before.TCP("db").TLS {
			t.Errorf("%v: the TLS settings differ", c.choice)
		}
	}
	// A change of the TLS settings still counts as a difference.
	web.Tls.MinVersion = adminv1.TlsVersion_TLS_VERSION_1_3
	w.put(web)
	if w.snap.HTTP("web").TLS == before.HTTP("web").TLS {
		t.Error("the TLS settings are equal")
	}
	web.AccessLog = 7
	if f := w.refused(web); len(f) != 1 || f[0].Field != "r0.access_log" {
		t.Errorf("faults %v", f)
	}
}

func TestLatenciesContinueAcrossRevisions(t *testing.T) {
	w := newTestbed(t)
	u := tlsUpstream("up", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}})
	w.put(w.bundle("trust"), u)
	before, _ := w.snap.Upstream("up")
	u = proto.Clone(u).(*adminv1.Upstream)
	u.Pool = &adminv1.Pool{MaxIdle: new(int32(3))}
	w.put(u)
	if after, _ := w.snap.Upstream("up"); after.Live == before.Live || after.Latencies != before.Latencies || after.Latencies == nil {
		t.Errorf("before %+v, after %+v", before, after)
	}
}
