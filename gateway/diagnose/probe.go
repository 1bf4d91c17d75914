package diagnose

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bridge/probe"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Limits for one request.
const (
	MaxProbes = 32               // endpoints probed at once
	timeout   = 20 * time.Second // for all endpoints
)

// unnamed names an upstream that a probe request holds in full without a name. It
// is never applied.
const unnamed = "upstream-without-a-name"

// Probe makes a TLS handshake with each endpoint that the request selects. The
// error is an *invalid.Error with the faults of the request, or of the upstream
// in it. Failures of endpoints are in the response.
func (d *Diagnostics) Probe(ctx context.Context, req *adminv1.ProbeUpstreamRequest) (*adminv1.ProbeUpstreamResponse, error) {
	snap := d.o.Live()
	var bad invalid.List
	name := req.GetName()
	switch target := req.GetTarget().(type) {
	case *adminv1.ProbeUpstreamRequest_Upstream:
		name, snap = d.draftUpstream(ctx, snap, target.Upstream, &bad)
	case *adminv1.ProbeUpstreamRequest_Name:
		if _, ok := snap.Upstream(name); !ok {
			bad.AddClass(invalid.NotFound, "name", "%s", snap.State().Absent(store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: name}))
		}
	default:
		bad.Add("name", "name or upstream must be set")
	}
	if !snapshot.IsHost(req.GetHost()) && req.GetHost() != "" {
		bad.Add("host", "is %.260q; it must be a DNS name or an IP address, without a port", req.GetHost())
	}
	var request *probe.Request
	if text := req.GetRequest(); text != "" {
		var err error
		if request, err = probe.ParseRequest(text); err != nil {
			bad.Add("request", "%v", err)
		}
	}
	if err := bad.Err(); err != nil {
		return nil, err
	}
	endpoints := snap.Endpoints(ctx, name, req.GetHost())
	for i := range endpoints {
		endpoints[i].Target.Request = request
	}
	if req.GetEndpoint() != "" {
		var err error
		if endpoints, err = only(req.GetEndpoint(), name, endpoints); err != nil {
			return nil, err
		}
	}
	return All(ctx, endpoints), nil
}

// draftUpstream returns the snapshot that would be live if the upstream were
// applied, and the upstream's name in it.
func (d *Diagnostics) draftUpstream(ctx context.Context, live *snapshot.Snapshot, u *adminv1.Upstream, bad *invalid.List) (string, *snapshot.Snapshot) {
	if u == nil {
		bad.Add("upstream", "must be set")
		return "", live
	}
	u = proto.Clone(u).(*adminv1.Upstream)
	u.Etag = "" // nothing is written, so nothing can be overwritten
	if u.Name == "" {
		u.Name = unnamed
	}
	draft := live.State().Edit(store.Edit{Puts: []store.Put{{Path: "upstream", Resource: u}}}, bad)
	return u.Name, d.o.Compiler.WithUpstream(ctx, live, draft, u.Name, bad)
}

// only returns the endpoint with the address.
func only(address, name string, endpoints []snapshot.Endpoint) ([]snapshot.Endpoint, error) {
	var known []string
	for _, e := range endpoints {
		if e.Address == address {
			return []snapshot.Endpoint{e}, nil
		}
		known = append(known, e.Address)
	}
	return nil, invalid.Errorf(invalid.NotFound, "endpoint", "upstream %q has no endpoint %.260q; it has %.1000s", name, address, strings.Join(known, ", "))
}

// All probes endpoints concurrently and returns when all are done.
func All(ctx context.Context, endpoints []snapshot.Endpoint) *adminv1.ProbeUpstreamResponse {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out := &adminv1.ProbeUpstreamResponse{Results: make([]*adminv1.ProbeResult, len(endpoints))}
	slots := make(chan struct{}, MaxProbes)
	var wg sync.WaitGroup
	for i, e := range endpoints {
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				out.Results[i] = probeOne(ctx, e)
				<-slots
			})
		case <-ctx.Done():
			out.Results[i] = &adminv1.ProbeResult{
				Endpoint: e.Address, Outcome: adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED, Reason: adminv1.Reason_REASON_OTHER,
				Explanation: fmt.Sprintf("not probed: probing %d endpoints took longer than the limit of %v", len(endpoints), timeout),
				Suggestion:  &adminv1.Suggestion{Text: "probe this endpoint alone, by its address"},
			}
		}
	}
	wg.Wait()
	fit(out, maxResponseBytes)
	return out
}

// maxResponseBytes bounds a response, in bytes. gRPC clients accept 4 MiB by default.
const maxResponseBytes = 3 << 20

// fit removes certificates from a response until it has at most most bytes,
// because endpoints can present certificates of any size.
func fit(out *adminv1.ProbeUpstreamResponse, most int) {
	for _, keep := range []int{1, 0} {
		if proto.Size(out) <= most {
			return
		}
		for _, r := range out.Results {
			r.Chain = r.Chain[:min(len(r.Chain), keep)]
			r.AcceptableCas = r.AcceptableCas[:min(len(r.AcceptableCas), 5*keep)]
		}
	}
}

func probeOne(ctx context.Context, e snapshot.Endpoint) *adminv1.ProbeResult {
	if e.Down != "" {
		return &adminv1.ProbeResult{
			Endpoint: e.Address, Outcome: adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED, Reason: adminv1.Reason_REASON_LOCAL_CONFIG,
			Explanation: "not probed, because the upstream is down: " + e.Down,
			Suggestion:  &adminv1.Suggestion{Text: "correct the resource that the explanation names, and apply it again"},
		}
	}
	if e.Unresolved != nil {
		return unresolved(e)
	}
	return probeResult(e.Address, probe.Run(ctx, e.Target))
}

// unresolved returns the result of an endpoint whose name DNS did not resolve.
func unresolved(e snapshot.Endpoint) *adminv1.ProbeResult {
	out := &adminv1.ProbeResult{
		Endpoint: e.Address, Outcome: adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED, Reason: snapshot.Reason(certs.Classify(e.Unresolved)),
		Explanation: certs.ErrorText(e.Unresolved),
	}
	if dns, ok := errors.AsType[*net.DNSError](e.Unresolved); ok {
		problem := certs.ErrorText(errors.New(dns.Err))
		if dns.Server != "" {
			problem += " (queried " + dns.Server + ")"
		}
		out.Explanation = fmt.Sprintf("the name %.260q does not resolve: %s; addresses that were known before stay in use", cmp.Or(dns.Name, e.Address), problem)
		out.Suggestion = &adminv1.Suggestion{
			Field: e.Target.AddressField,
			Text:  fmt.Sprintf("correct %s or dns.servers, or this machine's name resolution", e.Target.AddressField),
		}
	}
	return out
}

// suggestion returns the API's form of a suggestion, or nil for none.
func suggestion(s probe.Suggestion) *adminv1.Suggestion {
	if s == (probe.Suggestion{}) {
		return nil
	}
	return &adminv1.Suggestion{Field: s.Field, Value: s.Value, Text: s.Text}
}

// probeResult returns the API's form of a result.
func probeResult(address string, r *probe.Result) *adminv1.ProbeResult {
	out := &adminv1.ProbeResult{
		Endpoint:                   address,
		Outcome:                    outcome(r.Reason),
		Reason:                     snapshot.Reason(r.Reason),
		Explanation:                r.Explanation,
		Suggestion:                 suggestion(r.Suggestion),
		Version:                    snapshot.TLSVersion(r.Version),
		Alpn:                       r.ALPN,
		ResumptionOffered:          r.ResumptionOffered,
		ClientCertificateRequested: r.ClientRequested,
		ClientCertificateSent:      r.ClientSent,
		AcceptableCas:              r.AcceptableCAs,
		ServerName:                 r.ServerName,
		VerifyName:                 strings.Join(r.VerifyNames, ", "),
		RemoteAddress:              r.RemoteAddress,
		ResponseStatus:             int32(r.ResponseStatus),
		Timings:                    &adminv1.ProbeTimings{},
	}
	if r.CipherSuite != 0 {
		out.CipherSuite = tls.CipherSuiteName(r.CipherSuite)
	}
	if r.Group != 0 {
		out.Group = probe.GroupName(r.Group)
	}
	for _, c := range r.Chain {
		out.Chain = append(out.Chain, snapshot.CertificateInfo(c))
	}
	for _, step := range []struct {
		took time.Duration
		at   **durationpb.Duration
	}{{r.DNS, &out.Timings.Dns}, {r.Connect, &out.Timings.Connect}, {r.Handshake, &out.Timings.Handshake}} {
		if step.took > 0 {
			*step.at = durationpb.New(step.took)
		}
	}
	for _, a := range r.Attempts {
		out.Attempts = append(out.Attempts, &adminv1.ProbeAttempt{Change: a.Change, Outcome: outcome(a.Reason), Reason: snapshot.Reason(a.Reason)})
	}
	return out
}

func outcome(r certs.Reason) adminv1.ProbeOutcome {
	if r == "" {
		return adminv1.ProbeOutcome_PROBE_OUTCOME_OK
	}
	return adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED
}
