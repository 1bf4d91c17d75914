package gateway

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Status returns the gateway's current status.
func (g *Gateway) Status() *adminv1.GetStatusResponse {
	snap, pending := g.liveAndPending()
	state := snap.State()
	count := func(k adminv1.Kind) int32 { return int32(state.Len(k)) }
	out := &adminv1.GetStatusResponse{
		Version:   g.version,
		StartTime: timestamppb.New(g.started),
		Uptime:    durationpb.New(time.Since(g.started)),
		Revision:  state.Revision(), InstanceId: g.InstanceID(), Sealed: g.sealed,
		Ready:     g.notReady() == "",
		Listeners: g.listeners.Status(snap),
		Counts: &adminv1.ResourceCounts{
			Listeners:    count(adminv1.Kind_KIND_LISTENER),
			Routes:       count(adminv1.Kind_KIND_ROUTE),
			Upstreams:    count(adminv1.Kind_KIND_UPSTREAM),
			Certificates: count(adminv1.Kind_KIND_CERTIFICATE),
			TrustBundles: count(adminv1.Kind_KIND_TRUST_BUNDLE),
		},
	}
	limit, clients, upstreams := g.descriptors.Usage()
	paused, pauses := g.descriptors.Paused()
	out.Descriptors = &adminv1.Descriptors{
		Limit: int64(limit), Clients: int64(max(clients, 0)), Upstreams: int64(max(upstreams, 0)),
		PausedListeners: int32(paused), Pauses: int64(pauses),
	}
	out.Pending, out.Confinement = pending.message(), g.confinement
	for _, p := range g.problems(snap) {
		out.Problems = append(out.Problems, &adminv1.Problem{Kind: p.Ref.Kind, Name: p.Ref.Name, Reason: p.Reason})
	}
	for _, w := range snap.SecurityWarnings() {
		out.Warnings = append(out.Warnings, &adminv1.Warning{Field: string(w.Field), Message: w.Message, Code: admin.WarningCode(w.Code)})
	}
	var warnings []*adminv1.Warning
	out.Fleet, warnings = fleetStatus(g.fleet, state.Revision())
	out.Warnings = append(out.Warnings, warnings...)
	if fault := g.policyFault.Load(); fault != nil {
		out.Warnings = append(out.Warnings, &adminv1.Warning{Message: "the last valid policy stays in force: " + *fault, Code: adminv1.WarningCode_WARNING_CODE_POLICY_INVALID})
	}
	return out
}

// problems returns the resources that could not be compiled and the listeners
// that could not be bound.
func (g *Gateway) problems(snap *snapshot.Snapshot) []snapshot.Problem {
	all := slices.Clone(snap.Problems())
	down := g.listeners.Down()
	for _, name := range slices.Sorted(maps.Keys(down)) {
		all = append(all, snapshot.Problem{Ref: store.Ref{Kind: adminv1.Kind_KIND_LISTENER, Name: name}, Reason: down[name]})
	}
	return all
}

// UpstreamStatus returns the status of an upstream's endpoints, or nil if the
// upstream is not live.
func (g *Gateway) UpstreamStatus(name string) *adminv1.UpstreamStatus {
	u, ok := g.live.Load().Upstream(name)
	if !ok {
		return nil
	}
	load := u.Live.Load()
	s := &adminv1.UpstreamStatus{
		Name: u.Name, Reason: u.Reason, Message: u.Message,
		RequestsInFlight: int64(load.InFlight), Pending: int64(load.Pending), Overloaded: int64(load.Overloaded),
	}
	retries, refused := u.Live.Retries().Counts()
	s.Retries, s.RetriesRefused = int64(retries), int64(refused)
	open := u.Tracker.Counts()
	for _, fingerprint := range slices.Sorted(maps.Keys(open)) {
		s.ConnectionsByCertificate = append(s.ConnectionsByCertificate, &adminv1.CertificateConnections{
			Sha256Fingerprint: fingerprint, Connections: int64(open[fingerprint]),
		})
	}
	s.Dns = dnsStatus(u.Live.DNS())
	size := 0
	for _, e := range u.Live.Status() {
		if e.Left && e.Open == 0 {
			continue
		}
		s.EndpointCount++
		if size > maxEndpointBytes {
			continue
		}
		m := endpointStatus(e)
		if size += proto.Size(m); size <= maxEndpointBytes || len(s.Endpoints) == 0 {
			s.Endpoints = append(s.Endpoints, m)
		}
	}
	return s
}

// maxEndpointBytes bounds the endpoints that the status of an upstream lists, in bytes:
// many gRPC clients reject messages above 4 MiB.
const maxEndpointBytes = 1 << 20

func dnsStatus(d *upstream.DNSStatus) *adminv1.DnsStatus {
	if d == nil {
		return nil
	}
	s := &adminv1.DnsStatus{Error: d.Error}
	if !d.Resolved.IsZero() {
		s.ResolveTime = timestamppb.New(d.Resolved)
	}
	if !d.Next.IsZero() {
		s.NextResolveTime = timestamppb.New(d.Next)
	}
	return s
}

var healths = map[upstream.Health]adminv1.EndpointHealth{
	upstream.Unknown: adminv1.EndpointHealth_ENDPOINT_HEALTH_UNKNOWN,
	upstream.Up:      adminv1.EndpointHealth_ENDPOINT_HEALTH_UP,
	upstream.Down:    adminv1.EndpointHealth_ENDPOINT_HEALTH_DOWN,
}

func endpointStatus(e upstream.EndpointStatus) *adminv1.EndpointStatus {
	s := &adminv1.EndpointStatus{
		Address:           snapshot.EndpointAddress(e),
		Health:            healths[e.Health],
		Connections:       int64(e.Open),
		ConnectionsMade:   int64(e.Made),
		Requests:          int64(e.Requests),
		RequestsInFlight:  int64(e.InFlight),
		Weight:            int32(e.Weight),
		Available:         e.Available,
		UnavailableReason: e.Unavailable,
		Ejections:         int64(e.Ejections),
		HandshakesFull:    int64(e.HandshakesFull),
		HandshakesResumed: int64(e.HandshakesResumed),
		Backup:            e.Backup,
		Draining:          e.Draining,
	}
	s.Failures, s.Reported = snapshot.FailureCounts(e.Failures), snapshot.FailureCounts(e.Reported)
	s.VerifiedBy = snapshot.AnchorUses(e.VerifiedBy)
	for _, reason := range slices.Sorted(maps.Keys(e.Full)) {
		s.FullHandshakes = append(s.FullHandshakes, &adminv1.FullHandshakes{
			Reason: adminv1.FullHandshakeReason(adminv1.FullHandshakeReason_value["FULL_HANDSHAKE_REASON_"+string(reason)]), Count: int64(e.Full[reason]),
		})
	}
	if w := e.Warm; w != nil {
		s.Warm = &adminv1.WarmConnections{
			Size: int32(w.Size), Ready: int32(w.Ready), Used: int64(w.Used), Missed: int64(w.Missed), Expired: int64(w.Expired), Closed: int64(w.Closed),
		}
	}
	if !e.EjectedUntil.IsZero() {
		s.EjectionEndTime = timestamppb.New(e.EjectedUntil)
	}
	if c := e.Check; c != nil {
		s.Check = &adminv1.CheckStatus{Healthy: c.Healthy, Checked: c.Checked, Message: c.Message, Checks: int64(c.Checks), Failures: int64(c.Failures)}
		s.Check.Reason = snapshot.Reason(c.Reason)
		if c.Checked {
			s.Check.CheckTime, s.Check.Duration = timestamppb.New(c.Time), durationpb.New(c.Duration)
		}
	}
	if f := e.LastFailure; f != nil {
		s.LastFailure = &adminv1.LastFailure{Reason: snapshot.Reason(f.Reason), Message: f.Message, FailureTime: timestamppb.New(f.Time)}
	}
	if e.PeerCertificate != nil {
		s.Certificate = snapshot.CertificateInfo(*e.PeerCertificate)
	}
	return s
}
