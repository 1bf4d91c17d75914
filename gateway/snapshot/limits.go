package snapshot

import (
	"cmp"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// maxCount is the maximum of every limit that is a count.
const maxCount = 1_000_000

// tcpLimits sets the limits of a TCP listener's table.
func (s listenerScope) tcpLimits(t *l4.Table, msg *adminv1.ListenerLimits) {
	for _, f := range []struct {
		name string
		n    int32
	}{{"requests", msg.GetRequests()}, {"requests_per_client", msg.GetRequestsPerClient()}} {
		if f.n > 0 {
			s.Add(invalid.Path("limits").Field(f.name), "must be left out: the listener's protocol is PROTOCOL_TCP; its connections are bounded by limits.connections and limits.connections_per_client")
		}
	}
	t.MaxConnections = s.limit("limits.connections", msg.GetConnections(), maxCount)
	t.MaxPerClient = s.limit("limits.connections_per_client", msg.GetConnectionsPerClient(), maxCount)
	t.Rate = s.rate("limits.rate", msg.GetRate())
	t.RatePerClient = s.rate("limits.rate_per_client", msg.GetRatePerClient())
}

// httpLimits sets the limits of an HTTP listener's table.
func (s listenerScope) httpLimits(t *l7.Table, msg *adminv1.ListenerLimits, o *adminv1.HttpOptions) {
	t.MaxConnections = s.limit("limits.connections", msg.GetConnections(), maxCount)
	t.MaxPerClient = s.limit("limits.connections_per_client", msg.GetConnectionsPerClient(), maxCount)
	t.Limits = limit.Limits{
		AtOnce:          s.limit("limits.requests", msg.GetRequests(), maxCount),
		AtOncePerClient: s.limit("limits.requests_per_client", msg.GetRequestsPerClient(), maxCount),
		Rate:            s.rate("limits.rate", msg.GetRate()),
		RatePerClient:   s.rate("limits.rate_per_client", msg.GetRatePerClient()),
	}
	t.MaxBody = o.GetMaxBodyBytes()
	t.MaxRequests = int(o.GetMaxRequestsPerConnection())
	t.MaxAge = s.age("http.max_connection_age", o.GetMaxConnectionAge())
}

// rate checks a rate and returns it; zero means no limit.
func (s *scope) rate(p invalid.Path, msg *adminv1.Rate) limit.Rate {
	if msg == nil {
		return limit.Rate{}
	}
	r := limit.Rate{
		Count:  s.limit(p.Field("count"), msg.GetCount(), maxCount),
		Period: cmp.Or(s.duration(p.Field("period"), msg.GetPeriod()), time.Second),
		Burst:  s.count(p.Field("burst"), msg.Burst, maxCount),
	}
	if msg.GetCount() == 0 {
		s.Add(p.Field("count"), "must be at least 1")
	}
	if r.Period < time.Millisecond || r.Period > time.Hour {
		s.Add(p.Field("period"), "is %v; it must be from 1ms to 1h", r.Period)
	}
	return r
}
