package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestARequestIsExplained(t *testing.T) {
	answer := example(t, &adminv1.ExplainRouteResponse{}, "explain")
	sh := serveFake(t, fakeAdmin{diagnostics: fakeDiagnostics{explain: func(r *adminv1.ExplainRouteRequest) (*adminv1.ExplainRouteResponse, error) {
		if r.GetListener() != "web" || r.GetHost() != "PAY.example:80" || r.GetMethod() != "POST" || len(r.GetHeaders()) != 2 || r.GetHeaders()["X-A"] != "b: c" || r.GetHeaders()["X-Empty"] != "" || r.GetSni() != "s" {
			t.Errorf("the requests are %v", r)
		}
		return answer, nil
	}}})
	args := strings.Fields("explain web --host PAY.example:80 --path //v2/./x --method POST --sni s -H X-Empty: --header")
	r := sh.run(t.Context(), append(args, "X-A: b: c")...)
	r.want(t, exit.OK)
	if want := readFile(t, "view/testdata/explain.txt"); r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	r = sh.run(t.Context(), append(args, "X-A: b: c", "-o", "json")...)
	var got struct {
		Action    string
		Upstreams []struct {
			Verification string
			Percent      float64
		}
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || got.Action != "FORWARD" || got.Upstreams[0].Verification != "REPORT_ONLY" || got.Upstreams[0].Percent != 66.6666667 {
		t.Errorf("%v in %s", err, r.out)
	}
	answer.Upstreams = answer.Upstreams[3:]
	sh.run(t.Context(), append(args, "X-A: b: c")...).want(t, exit.Failure, "every upstream that it could go to is down")
}

func TestARefusalIsExplained(t *testing.T) {
	var answer *adminv1.ExplainRouteResponse
	sh := serveFake(t, fakeAdmin{diagnostics: fakeDiagnostics{explain: func(*adminv1.ExplainRouteRequest) (*adminv1.ExplainRouteResponse, error) {
		return answer, nil
	}}})
	answer = &adminv1.ExplainRouteResponse{Action: adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE, Code: 404, Why: "no route matches", Host: "a", Path: "/"}
	r := sh.run(t.Context(), "explain", "web", "--host", "a", "--path", "/")
	if want := "refuse 404  by no route\n  no route matches\n"; r.code != exit.Failure || r.out != want {
		t.Errorf("%d\n%s", r.code, r.out)
	}
	answer = &adminv1.ExplainRouteResponse{Action: adminv1.ExplainedAction_EXPLAINED_ACTION_REDIRECT, Code: 301, Why: "path /old matches", Route: "old"}
	sh.run(t.Context(), "explain", "web").want(t, exit.OK, "redirect 301  by route old\n")

	for args, want := range map[string]string{
		"-H x":           `--header: must be "Name: value"`,
		"-H :x":          `--header: must be "Name: value"`,
		"-H a:1 -H A:2":  "--header: A is given twice",
		"--sni a b":      "accepts 1 arg(s)",
		"-H a:1 --sni=x": "",
	} {
		code := exit.Usage
		if want == "" {
			code = exit.OK
		}
		sh.run(t.Context(), append([]string{"explain", "web"}, strings.Fields(args)...)...).want(t, code, want)
	}
}

func TestConnectionsAreDrainedByFingerprint(t *testing.T) {
	const old, other = "aabbccdd00000000000000000000000000000000000000000000000000000001", "aabbccdd11110000000000000000000000000000000000000000000000000002"
	var asked *adminv1.DrainConnectionsRequest
	sh := serveFake(t, fakeAdmin{
		status: fakeStatus{upstreams: &adminv1.ListUpstreamStatusesResponse{Upstreams: []*adminv1.UpstreamStatus{{Name: "pay",
			ConnectionsByCertificate: []*adminv1.CertificateConnections{{Sha256Fingerprint: old}, {Sha256Fingerprint: other}, {Connections: 1}}}}}},
		diagnostics: fakeDiagnostics{drain: func(r *adminv1.DrainConnectionsRequest) (*adminv1.DrainConnectionsResponse, error) {
			if asked = r; r.GetUpstream() == "none" {
				return nil, refuse(codes.NotFound, "x", &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "upstream", Description: `there is no upstream "none"`}}})
			}
			return &adminv1.DrainConnectionsResponse{Connections: 3}, nil
		}},
	})
	sh.run(t.Context(), "drain", "pay").want(t, exit.OK, "3 connections to pay will be closed within 30s.\n")
	if asked.GetUpstream() != "pay" || asked.GetSha256Fingerprint() != "" || asked.GetPeriod().AsDuration() != 30*time.Second {
		t.Errorf("the requests are %v", asked)
	}
	for text, want := range map[string]string{
		old: old, "AA:BB:CC:DD:00": old, "aabbccdd1": other, strings.Repeat("f", 64): strings.Repeat("f", 64),
	} {
		sh.run(t.Context(), "drain", "pay", "--fingerprint", text, "--period", "1m").want(t, exit.OK, "within 1m0s.")
		if asked.GetSha256Fingerprint() != want || asked.GetPeriod().AsDuration() != time.Minute {
			t.Errorf("%s: the requests are %v", text, asked)
		}
	}
	sh.run(t.Context(), "drain", "pay", "-o", "json").want(t, exit.OK, `"connections": 3`)

	asked = nil
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"pay --fingerprint aabbccdd", exit.Usage, "is ambiguous: it matches " + old + ", " + other},
		{"pay --fingerprint 12345678", exit.NotFound, "begins with 12345678"},
		{"pay --fingerprint aabb", exit.Usage, "at least 8"},
		{"pay --fingerprint :", exit.Usage, "at least 8"},
		{"pay --fingerprint notahexnumber", exit.Usage, "hexadecimal digits"},
		{"pay --fingerprint " + old + "0", exit.Usage, "hexadecimal digits"},
		{"pay --period 0s", exit.Usage, "must be more than 0s"},
		{"pay two", exit.Usage, "accepts 1 arg(s)"},
	} {
		sh.run(t.Context(), append([]string{"drain"}, strings.Fields(tt.args)...)...).want(t, tt.code, tt.want)
	}
	if asked != nil {
		t.Errorf("the requests are %v", asked)
	}
	sh.run(t.Context(), "drain", "none").want(t, exit.NotFound, "Error: there is no upstream \"none\"\n")
	sh.run(t.Context(), "__complete", "drain", "pay", "--fingerprint", "").want(t, exit.OK, old+"\n"+other+"\n")
}

func TestSessionsAreFlushed(t *testing.T) {
	sh := serveFake(t, fakeAdmin{diagnostics: fakeDiagnostics{flush: func(r *adminv1.FlushSessionsRequest) (*adminv1.FlushSessionsResponse, error) {
		if r.GetUpstream() != "pay" {
			t.Errorf("the requests are %v", r)
		}
		return &adminv1.FlushSessionsResponse{Flushed: 1}, nil
	}}})
	sh.run(t.Context(), "flush-sessions", "pay").want(t, exit.OK, "1 session with pay discarded.\n")
	sh.run(t.Context(), "flush-sessions", "pay", "-o", "yaml").want(t, exit.OK, "flushed: 1\n")
	sh.run(t.Context(), "flush-sessions").want(t, exit.Usage, "accepts 1 arg(s), received 0")
}

func TestAChangeIsRefusedWithTheProbesThatFailed(t *testing.T) {
	var asked *adminv1.ApplyRequest
	sh := serveFake(t, fakeAdmin{apply: func(r *adminv1.ApplyRequest) (*adminv1.ApplyResponse, error) {
		if asked = r; r.GetOptions().GetDryRun() {
			return &adminv1.ApplyResponse{Change: &adminv1.Change{}}, nil // the impact of a delete
		}
		return nil, refuse(codes.FailedPrecondition, "a probe failed", &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
			{Subject: "resources[0].upstream", Description: "1 of 2 endpoints failed, and all are required"}}}, example(t, &adminv1.ProbeUpstreamResponse{}, "probe"))
	}})
	file := writeFile(t, t.TempDir(), "u.yaml", "kind: Upstream\nname: pay\n")
	r := sh.run(t.Context(), "apply", "-f", file, "--require-probe", "all")
	r.want(t, exit.Conflict, "10.0.0.2:443  FAILED  NAME_MISMATCH\n", "  → tls.verify_name: a.example\n", "✗ is not for pay.example\n",
		"\n\nError: "+file+":1: document 1 (Upstream pay): 1 of 2 endpoints failed, and all are required\n")
	if r.out != "" || asked.GetOptions().GetRequireProbe() != adminv1.RequireProbe_REQUIRE_PROBE_ALL {
		t.Errorf("the requests are %v; the output is %s", asked, r.out)
	}
	sh.run(t.Context(), "delete", "trustbundle", "corp", "--require-probe", "ANY").want(t, exit.Conflict, "10.0.0.2:443  FAILED  NAME_MISMATCH\n")
	if asked.GetOptions().GetRequireProbe() != adminv1.RequireProbe_REQUIRE_PROBE_ANY {
		t.Errorf("the requests are %v", asked)
	}
	sh.run(t.Context(), "apply", "-f", file).want(t, exit.Conflict)
	if asked.GetOptions().GetRequireProbe() != adminv1.RequireProbe_REQUIRE_PROBE_UNSPECIFIED {
		t.Errorf("the requests are %v", asked)
	}
	sh.run(t.Context(), "apply", "-f", file, "--require-probe", "some").want(t, exit.Usage, "must be any or all")
	sh.run(t.Context(), "__complete", "apply", "--require-probe", "").want(t, exit.OK, "any\nall\n")
}

func TestUpstreamsListenersAndEndpointsAreCompleted(t *testing.T) {
	sh := serveFake(t, fakeAdmin{
		status: fakeStatus{upstreams: &adminv1.ListUpstreamStatusesResponse{Upstreams: []*adminv1.UpstreamStatus{
			{Name: "pay", Endpoints: []*adminv1.EndpointStatus{{Address: "a:1"}, {Address: "b:1"}}}, {Name: "other"}}}},
		upstreams: []*adminv1.Upstream{{Name: "pay"}, {Name: "other"}}, listeners: []*adminv1.Listener{{Name: "web"}},
	})
	for _, command := range []string{"probe", "drain", "flush-sessions"} {
		sh.run(t.Context(), "__complete", command, "").want(t, exit.OK, "pay\nother\n")
	}
	sh.run(t.Context(), "__complete", "explain", "").want(t, exit.OK, "web\n")
	sh.run(t.Context(), "__complete", "explain", "web", "").want(t, exit.OK, ":4")
	sh.run(t.Context(), "__complete", "probe", "pay", "--endpoint", "").want(t, exit.OK, "a:1\nb:1\n")
	if r := sh.run(t.Context(), "__complete", "probe", "--endpoint", ""); strings.Contains(r.out, "a:1") {
		t.Errorf("the endpoints of a missing upstream are completed:\n%s", r.out)
	}
	shell{env: map[string]string{"DRAWBRIDGE_ADMIN": "unix:/none"}}.run(t.Context(), "__complete", "probe", "").want(t, exit.OK, ":1")
}
