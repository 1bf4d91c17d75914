// Keys that take long to decrypt do not delay a stop, even during a start. A
// write is never applied after its client has given up.

package e2e

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// cpuTime returns the CPU time that a process has used.
func cpuTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	used, err := usedCPU(pid)
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// usedCPU is cpuTime for a process that may have ended.
func usedCPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may contain spaces. User and system time are the fields 14
	// and 15, in ticks of 10 ms.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks [2]time.Duration
	for i := range ticks {
		if _, err := fmt.Sscan(fields[11+i], &ticks[i]); err != nil {
			return 0, err
		}
	}
	return (ticks[0] + ticks[1]) * 10 * time.Millisecond, nil
}

func TestKeysThatTakeLongToDecrypt(t *testing.T) {
	t.Parallel()
	openssl := need(t, "openssl")
	a := newAuthority(t)
	encrypted := commandInput(t, string(a.client.KeyPEM), openssl, "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-iter", "2000000", "-passout", "pass:secret")
	if encrypted.code != 0 {
		t.Fatal(encrypted)
	}
	put := func(name string) *adminv1.Certificate {
		c := certificate(name, a.client)
		c.GetPem().PrivateKey, c.GetPem().Passphrase = encrypted.stdout, "secret"
		return c
	}
	many := func(prefix string, n int) *adminv1.ApplyRequest {
		req := &adminv1.ApplyRequest{}
		for i := range n {
			req.Resources = append(req.Resources, &adminv1.Resource{Kind: &adminv1.Resource_Certificate{Certificate: put(fmt.Sprint(prefix, i))}})
		}
		return req
	}
	g := startGateway(t)
	pid := g.cmd.Process.Pid
	start := cpuTime(t, pid)
	g.apply(put("one"))
	cost := cpuTime(t, pid) - start
	if cost < 50*time.Millisecond {
		t.Fatalf("decrypting a key took %v of CPU time, too little for this test", cost)
	}
	// working waits until the gateway decrypts keys.
	working := func(g *gateway, since time.Duration) {
		t.Helper()
		eventually(t, "keys are being decrypted", func() bool { return cpuTime(t, g.cmd.Process.Pid) > since+cost/4 })
	}
	// endsSoon stops the gateway, and checks that from then on it uses no more CPU time than
	// for about one key, which costs more on a busy machine.
	endsSoon := func(what string, g *gateway) {
		t.Helper()
		g.signal(syscall.SIGTERM)
		// The test may stall between its last look at the gateway and the signal, so the time
		// is taken after the signal. A process that has ended has used no more.
		since, ended := usedCPU(g.cmd.Process.Pid)
		if code := g.wait(); code != 0 {
			t.Errorf("%s: exit code %d", what, code)
		}
		state := g.cmd.ProcessState
		if used := state.UserTime() + state.SystemTime() - since; ended == nil && used > 4*cost+300*time.Millisecond {
			t.Errorf("%s took %v of CPU time, and one key takes %v", what, used, cost)
		}
	}
	revision := g.getStatus().GetRevision()

	// The client gives up.
	before := cpuTime(t, pid)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		_, err := g.admin.Apply(ctx, many("late-", 80))
		answered <- err
	}()
	working(g, before)
	cancel()
	if err := <-answered; status.Code(err) != codes.Canceled {
		t.Fatalf("a write that is canceled: %v", err)
	}
	g.logged(regexp.MustCompile(`"@message":"write".*"code":"(Unavailable|DeadlineExceeded|Canceled)".*AdminService/Apply`))
	if now := g.getStatus().GetRevision(); now != revision {
		t.Errorf("revision %d, want %d: the write was applied later", now, revision)
	}

	// The gateway stops.
	before = cpuTime(t, pid)
	go func() {
		_, err := g.admin.Apply(t.Context(), many("stopped-", 80))
		answered <- err
	}()
	working(g, before)
	endsSoon("a stop", g)
	if err := <-answered; status.Code(err) != codes.Unavailable {
		t.Errorf("the write during the stop: %v", err)
	}

	// The gateway has many such keys, and gets a signal to stop while it starts.
	g = g.restart()
	if now := g.getStatus().GetRevision(); now != revision {
		t.Errorf("revision %d after a restart, want %d", now, revision)
	}
	for i := range 7 {
		g.apply(put(fmt.Sprint("stored-", i)))
	}
	g.stop()
	g = launch(t, g.dir)
	working(g, cost/4)
	endsSoon("a stop during the start", g)
}
