// A change that is not confirmed is undone automatically: at its deadline, even if it
// cuts off its own author, and after `kill -9`. A confirmed change stays.

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// respondWith returns a route of "web" that answers with a body.
func respondWith(body string) *adminv1.Route {
	r := forward("r", "web", "/", "")
	r.Action = &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: body}}
	return r
}

// applyPending applies resources that must be confirmed within a time.
func (g *gateway) applyPending(within time.Duration, resources ...proto.Message) *adminv1.Change {
	g.t.Helper()
	resp, err := g.admin.Apply(longContext(g.t), &adminv1.ApplyRequest{Resources: wrap(g.t, resources), Options: &adminv1.WriteOptions{ConfirmWithin: durationpb.New(within)}})
	if err != nil {
		g.t.Fatalf("Apply: %v", err)
	}
	return resp.GetChange()
}

// The author reaches the admin service through the gateway, like a team whose bastion is
// behind the gateway. The change sends that bridge to another server.
func TestAChangeThatCutsItsAuthorOffIsUndone(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	dir := t.TempDir()
	for name, data := range nginxFiles(a.ca, a.server) {
		writeFile(t, filepath.Join(dir, name), data)
	}
	g, address := launchOn(t, func(address string) []string {
		return []string{"--admin-tcp", address, "--admin-tls-cert", filepath.Join(dir, "server.pem"),
			"--admin-tls-key", filepath.Join(dir, "server.key"), "--admin-client-ca", filepath.Join(dir, "ca.pem")}
	})
	door := func(to string) *adminv1.Upstream {
		return &adminv1.Upstream{Name: "door", Endpoints: []*adminv1.Endpoint{{Address: to}}, Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}}
	}
	g.apply(door(address), listener("door", protocolTCP, "door"))

	// Each call makes its own connection, because the gateway does not end open
	// connections.
	call := func(f func(context.Context, adminv1.AdminServiceClient) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
		defer cancel()
		conn := dialAdmin(t, g.address("door"), credentials.NewTLS(&tls.Config{RootCAs: pool(a.ca), ServerName: serverName, Certificates: []tls.Certificate{keyPair(t, a.client)}}))
		defer conn.Close()
		return f(ctx, adminv1.NewAdminServiceClient(conn))
	}
	read := func(ctx context.Context, c adminv1.AdminServiceClient) error {
		_, err := c.GetUpstream(ctx, &adminv1.GetUpstreamRequest{Name: "door"})
		return err
	}
	nowhere := freeAddresses(t, 1)[0]
	var change *adminv1.Change
	if err := call(func(ctx context.Context, c adminv1.AdminServiceClient) error {
		resp, err := c.Apply(ctx, &adminv1.ApplyRequest{Resources: wrap(t, []proto.Message{door(nowhere)}),
			Options: &adminv1.WriteOptions{ConfirmWithin: durationpb.New(3 * time.Second), Comment: "a typing error"}})
		change = resp.GetChange()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if change.GetPending().GetRevision() != 2 || change.GetPending().GetRollbackTo() != 1 {
		t.Fatalf("%v", change)
	}
	if err := call(read); status.Code(err) != codes.Unavailable && g.getStatus().GetPending() != nil {
		t.Errorf("the author was not cut off: %v", err)
	}
	eventually(t, "the author is back", func() bool { return call(read) == nil })
	if s := g.getStatus(); s.GetRevision() != 3 || s.GetPending() != nil {
		t.Errorf("revision %d, pending %v", s.GetRevision(), s.GetPending())
	}
	r, err := g.admin.GetRevision(longContext(t), &adminv1.GetRevisionRequest{Revision: 2})
	if err != nil || r.GetTransport() != adminv1.Transport_TRANSPORT_TCP || r.GetPrincipal() == "" || r.GetComment() != "a typing error" {
		t.Errorf("%v, %v", r, err)
	}
}

func TestAPendingChangeEndsWithItsProcess(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	g.apply(listener("web", protocolHTTP, ""), respondWith("old"))
	for round, end := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		revision := g.getStatus().GetRevision()
		g.applyPending(time.Hour, respondWith(fmt.Sprint("new ", round)))
		if _, body := get(t, "http://"+g.address("web")+"/"); body != fmt.Sprint("new ", round) {
			t.Fatalf("the change is not live: %q", body)
		}
		g.signal(end)
		<-g.exited
		for range 2 { // at the second start no revision is pending
			g = g.restart()
			if s := g.getStatus(); s.GetRevision() != revision+2 || s.GetPending() != nil {
				t.Fatalf("%v: revision %d, pending %v", end, s.GetRevision(), s.GetPending())
			}
			if _, body := get(t, "http://"+g.address("web")+"/"); body != "old" {
				t.Fatalf("%v: %q", end, body)
			}
			g.signal(syscall.SIGKILL)
			<-g.exited
		}
		g = g.restart()
	}
	change := g.applyPending(time.Hour, respondWith("confirmed"))
	if _, err := g.admin.Confirm(longContext(t), &adminv1.ConfirmRequest{Revision: change.GetRevision()}); err != nil {
		t.Fatal(err)
	}
	g.signal(syscall.SIGKILL)
	<-g.exited
	g = g.restart()
	if _, body := get(t, "http://"+g.address("web")+"/"); body != "confirmed" {
		t.Errorf("after a confirmation and a kill: %q", body)
	}
}

// kills returns how often a test kills the gateway. DRAWBRIDGE_KILLS sets it.
func kills(t *testing.T) int {
	if s := os.Getenv("DRAWBRIDGE_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 5
}

// `kill -9` during concurrent writes, confirmations and rollbacks loses no acknowledged
// revision. No unconfirmed revision remains, even if the kill is close to its deadline.
func TestKillsAmongWritesConfirmationsAndRollbacks(t *testing.T) {
	t.Parallel()
	for name, flags := range storesToKill(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testKills(t, flags...)
		})
	}
}

// storesToKill returns the flags of serve for each kind of store.
func storesToKill(t *testing.T) map[string][]string {
	t.Helper()
	key := filepath.Join(t.TempDir(), "seal.key")
	writeFile(t, key, []byte(strings.Repeat("5ea1", 16)))
	return map[string][]string{"unsealed": nil, "sealed": {"--seal-key-file", key}}
}

func testKills(t *testing.T, flags ...string) {
	g := startGateway(t, append(flags, "--revision-history", "10000")...) // more revisions than a round makes
	if g.getStatus().GetSealed() != (len(flags) > 0) {
		t.Fatal("the store is not the one to test")
	}
	random := rand.New(rand.NewPCG(16, uint64(os.Getpid())))
	type answer struct {
		body    string
		pending bool
	}
	var mu sync.Mutex
	stays := map[int64]string{} // the bodies of acknowledged revisions that need no confirmation or are confirmed
	up := func(body string) *adminv1.Upstream {
		return &adminv1.Upstream{Name: "u", Labels: map[string]string{"body": body}, Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}}
	}
	g.apply(up("first"))
	last := int64(1)
	stays[1] = "first"
	for round := range kills(t) {
		began := last
		until, within := time.Duration(20+random.IntN(150))*time.Millisecond, time.Hour
		if round%10 == 4 { // kill the gateway close to the deadline of a revision
			until, within = time.Duration(950+random.IntN(200))*time.Millisecond, time.Second
		}
		stop := time.AfterFunc(until, func() { _ = g.cmd.Process.Kill() })
		var writers sync.WaitGroup
		for w := range 3 {
			seed := random.Uint64()
			writers.Go(func() {
				random := rand.New(rand.NewPCG(16, seed))
				for i := 0; ; i++ {
					a := answer{body: fmt.Sprintf("%d-%d-%d", round, w, i), pending: random.IntN(3) == 0}
					options := &adminv1.WriteOptions{}
					if a.pending {
						options.ConfirmWithin = durationpb.New(within)
					}
					resp, err := g.admin.Apply(longContext(t), &adminv1.ApplyRequest{Resources: wrap(t, []proto.Message{up(a.body)}), Options: options})
					switch code := status.Code(err); {
					case code == codes.FailedPrecondition: // another writer's revision is pending
						continue
					case err != nil:
						return // the gateway was killed
					}
					n := resp.GetChange().GetRevision()
					if a.pending && within < time.Hour {
						continue // the writer does not confirm this revision
					}
					if a.pending && random.IntN(2) == 0 {
						if _, err := g.admin.Confirm(longContext(t), &adminv1.ConfirmRequest{Revision: n}); err != nil {
							return
						}
						a.pending = false
					} else if a.pending {
						back := n - 1
						resp, err := g.admin.Rollback(longContext(t), &adminv1.RollbackRequest{Revision: &back})
						if err != nil {
							return
						}
						mu.Lock()
						last = max(last, resp.GetChange().GetRevision())
						mu.Unlock()
						continue
					}
					mu.Lock()
					stays[n], last = a.body, max(last, n)
					mu.Unlock()
				}
			})
		}
		<-g.exited
		stop.Stop()
		writers.Wait()
		g = g.restart()

		s := g.getStatus()
		if s.GetPending() != nil || s.GetRevision() < last {
			t.Fatalf("round %d: revision %d after %d was acknowledged, pending %v", round, s.GetRevision(), last, s.GetPending())
		}
		if err := g.checkHistory(began, s.GetRevision(), stays); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		u, err := g.admin.GetUpstream(longContext(t), &adminv1.GetUpstreamRequest{Name: "u"})
		if err != nil {
			t.Fatal(err)
		}
		stays[s.GetRevision()], last = u.GetLabels()["body"], s.GetRevision()
	}
}

// checkHistory checks that the history has every revision from since on, and that each
// unconfirmed revision is followed by a rollback.
func (g *gateway) checkHistory(since, live int64, stays map[int64]string) error {
	stored := map[int64]*adminv1.Revision{}
	for token := ""; ; {
		page, err := g.admin.ListRevisions(longContext(g.t), &adminv1.ListRevisionsRequest{PageToken: token})
		if err != nil {
			return err
		}
		for _, r := range page.GetRevisions() {
			stored[r.GetRevision()] = r
		}
		if token = page.GetNextPageToken(); token == "" || stored[since] != nil {
			break
		}
	}
	for n := since; n <= live; n++ {
		r := stored[n]
		switch {
		case r == nil:
			return fmt.Errorf("revision %d is missing", n)
		case r.GetExpireTime() == nil || r.GetConfirmTime() != nil:
		case stored[n+1].GetRollbackTo() != n-1 || stored[n+1] == nil:
			return fmt.Errorf("revision %d was not confirmed, and is followed by %v", n, stored[n+1])
		}
		if _, ok := stays[n]; ok && r.GetExpireTime() != nil && r.GetConfirmTime() == nil {
			return errors.New("a confirmation was acknowledged and is lost")
		}
	}
	return nil
}
