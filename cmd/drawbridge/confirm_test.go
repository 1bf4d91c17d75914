package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestAPendingRevisionIsConfirmedOrUndone(t *testing.T) {
	s := gatewayShell(t)
	ctx := t.Context()
	up := func(port string) string {
		return writeFile(t, t.TempDir(), "up.yaml", "kind: Upstream\nname: up\nendpoints: [{address: \"127.0.0.1:"+port+"\"}]\nplaintext: {}\n")
	}
	s.run(ctx, "confirm").want(t, exit.Conflict, "no revision is pending")
	s.run(ctx, "apply", "-f", up("1"), "--confirm-within", "0s").want(t, exit.Invalid, "options.confirm_within")
	s.run(ctx, "apply", "-f", up("1"), "--confirm-within", "1h").want(t, 0, "Revision 1 is live", "drawbridge confirm 1")
	s.run(ctx, "status").want(t, 0, "PENDING revision 1")
	s.run(ctx, "apply", "-f", up("2")).want(t, exit.Conflict, "revision 1, made by uid:")
	s.run(ctx, "confirm", "7").want(t, exit.NotFound)
	s.run(ctx, "confirm").want(t, 0, "Revision 1 is confirmed.")
	s.run(ctx, "confirm", "1").want(t, 0, "Revision 1 is confirmed.")
	s.run(ctx, "delete", "upstream", "up", "--confirm-within", "1h").want(t, 0, "drawbridge confirm 2")
	s.run(ctx, "rollback", "1").want(t, 0, "Revision 3 is live")
	s.run(ctx, "rollback", "0", "--confirm-within", "1h").want(t, 0, "drawbridge confirm 4")
	s.run(ctx, "confirm", "4", "-o", "json").want(t, 0, `"confirmPrincipal": "uid:`)
}

// startCountdown applies an upstream with --confirm-within, and returns a countdown that
// writes to a buffer. It returns nil if the time has already expired.
func startCountdown(t *testing.T, s shell, within string) (*countdown, *bytes.Buffer) {
	t.Helper()
	file := writeFile(t, t.TempDir(), "up.yaml", "kind: Upstream\nname: up\nendpoints: [{address: \"127.0.0.1:1\"}]\nplaintext: {}\n")
	s.run(t.Context(), "apply", "-f", file, "--confirm-within", within).want(t, 0)
	cl := dial(t, s.env["DRAWBRIDGE_ADMIN"])
	status, err := cl.WholeStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status.GetPending() == nil {
		return nil, nil
	}
	var out bytes.Buffer
	return &countdown{Client: cl, out: &out, pending: status.GetPending()}, &out
}

func TestEnterConfirmsDuringTheCountdown(t *testing.T) {
	enter := make(chan struct{})
	close(enter)
	var s shell
	text := ""
	for range 5 { // on a busy machine, the gateway may not answer within the countdown's 2 s
		s = gatewayShell(t)
		d, out := startCountdown(t, s, "1h")
		if err := d.run(t.Context(), enter, nil); err != nil {
			t.Fatal(err)
		}
		if text = out.String(); !strings.Contains(text, "cannot be reached") {
			break
		}
	}
	if !strings.Contains(text, "failures: none  5xx: 0  connections lost: 0") || !strings.HasSuffix(text, "Revision 1 is confirmed.\n") {
		t.Errorf("%q", text)
	}
	s.run(t.Context(), "confirm").want(t, exit.Conflict, "no revision is pending")
}

func TestACountdownEndsWithTheRevision(t *testing.T) {
	var s shell
	var d *countdown
	for d == nil { // on a busy machine, the time may expire before the countdown begins
		s = gatewayShell(t)
		d, _ = startCountdown(t, s, "1s")
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	f := exit.AsError(d.run(t.Context(), nil, tick.C))
	if f.Code != exit.Conflict || !strings.Contains(f.Summary, "revision 2 is live, with the configuration of revision 0") {
		t.Errorf("%+v", f)
	}

	d, out := startCountdown(t, s, "1h")
	s.run(t.Context(), "confirm").want(t, 0) // another caller confirms
	if err := d.run(t.Context(), nil, tick.C); err != nil || !strings.Contains(out.String(), "Revision 3 was confirmed by uid:") {
		t.Errorf("%v: %q", err, out)
	}

	d, _ = startCountdown(t, gatewayShell(t), "1h")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if f := exit.AsError(d.run(ctx, nil, nil)); f.Code != exit.Failure || !strings.Contains(f.Summary, "revision 1 is still pending") {
		t.Errorf("%+v", f)
	}
}

// The countdown continues while the gateway cannot be reached: the gateway will roll back
// automatically.
func TestACountdownSurvivesAGatewayOutOfReach(t *testing.T) {
	cl := dial(t, "unix:/nowhere/s")
	var out bytes.Buffer
	d := countdown{Client: cl, out: &out, pending: &adminv1.Pending{Revision: 1, ExpireTime: timestamppb.New(time.Now().Add(time.Hour))}}
	if done, err := d.show(t.Context()); done || err != nil || !strings.Contains(out.String(), "the gateway cannot be reached") {
		t.Errorf("%v, %v: %q", done, err, &out)
	}
	d.pending.ExpireTime = timestamppb.New(time.Now().Add(-time.Hour))
	if done, err := d.show(t.Context()); !done || err == nil {
		t.Errorf("long after the deadline: %v, %v", done, err)
	}
}

func TestTrafficSinceCountsSeriesThatRestarted(t *testing.T) {
	before := &traffic{
		failures:     map[failureKey]int64{{"upstream a x:1", "UNKNOWN_CA"}: 5, {"upstream b x:1", "EXPIRED"}: 9},
		serverErrors: map[string]int64{"web": 10}, lost: map[string]int64{"tcp": 3},
	}
	now := &traffic{
		failures: map[failureKey]int64{
			{"upstream a x:1", "UNKNOWN_CA"}: 7, {"upstream b x:1", "EXPIRED"}: 2, // b was replaced, so its counters restarted
			{"listener web", "client BAD_CERTIFICATE"}: 1,
		},
		serverErrors: map[string]int64{"web": 14}, lost: map[string]int64{"tcp": 3, "new": 1},
	}
	if got, want := now.text(before, false), "failures: EXPIRED 2, UNKNOWN_CA 2, client BAD_CERTIFICATE 1  5xx: 4  connections lost: 1"; got != want {
		t.Errorf("%s", got)
	}
}

// dial returns a client of the gateway at an address.
func dial(t *testing.T, address string) *client.Client {
	t.Helper()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	conn := client.Flags(&command.Env{LookupEnv: os.LookupEnv}, flags)
	if err := flags.Set("admin", address); err != nil {
		t.Fatal(err)
	}
	cl, err := conn.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}
