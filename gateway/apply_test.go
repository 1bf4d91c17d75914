package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func isUnavailable(err error) bool {
	var bad *invalid.Error
	return errors.As(err, &bad) && bad.Worst() == invalid.Unavailable
}

// While one write waits for a file system that hangs, other writes succeed, and
// the gateway can stop.
func TestHungFileSystemDelaysOnlyItsReaders(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "ca.pem"), certstest.NewCA(t).TrustPEM())
	var hangs atomic.Bool
	reading := make(chan struct{}, 10)
	g := start(t, "", func(o *Options) {
		o.blocking = func(ctx context.Context, f func()) error {
			if !hangs.Load() {
				f()
				return nil
			}
			reading <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
	})
	hangs.Store(true)
	fromFile := &adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_File{File: file}}
	write := func(ctx context.Context) chan error {
		done := make(chan error, 1)
		go func() {
			_, err := g.Apply(ctx, store.Edit{Puts: puts(fromFile)})
			done <- err
		}()
		<-reading
		return done
	}
	ctx, cancel := context.WithCancel(t.Context())
	first, second := write(ctx), write(context.Background())
	g.put(bare("l", "127.0.0.1:0")) // would wait forever behind the lock
	cancel()
	if err := <-first; !isUnavailable(err) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("a write whose client has gone: %v", err)
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	if err := <-second; !isUnavailable(err) || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("a write during the stop: %v", err)
	}
	if g.State().Revision() != 1 {
		t.Errorf("revision %d", g.State().Revision())
	}
}

// An endsAfter is a context that ends after a given number of calls of Err.
type endsAfter struct {
	context.Context
	left atomic.Int64
}

func (c *endsAfter) Err() error {
	if c.left.Add(-1) < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// A client may give up at any moment. Then the write either fails and changes
// nothing, or succeeds.
func TestAWriteThatFailedWasNotApplied(t *testing.T) {
	g := start(t, "")
	failed := 0
	for asked := int64(0); ; asked++ {
		before := g.State().Revision()
		ctx := &endsAfter{Context: context.Background()}
		ctx.left.Store(asked)
		// plan gets another context: derived contexts would watch Done, but carryOut
		// and lock call Err directly.
		p, err := g.plan(context.Background(), store.Edit{Puts: puts(bare(fmt.Sprintf("l%d", asked), "127.0.0.1:0"))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, done, err := g.carryOutIfLive(ctx, p)
		if changed := g.State().Revision() != before; changed != (err == nil) || changed != done && err == nil {
			t.Fatalf("after %d calls of Err: changed %v, %v", asked, changed, err)
		}
		if err == nil {
			break
		}
		failed++
	}
	if failed < 2 { // it must fail at two points: with the lock, and before the commit
		t.Errorf("the write failed at only %d points", failed)
	}
}

// Reloads and the watcher read the same files at the same time. No reload fails
// because another one was faster.
func TestReloadsAtOnceDoNotFail(t *testing.T) {
	g := start(t, "")
	path := filepath.Join(t.TempDir(), "ca.pem")
	cas := [][]byte{certstest.NewCA(t).TrustPEM(), certstest.NewCA(t).TrustPEM()}
	writeFile(t, path, cas[0])
	g.put(&adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_File{File: path}})
	for i := range 50 {
		before := g.State().Revision() // the watcher may load the files first
		replaceFile(t, path, cas[(i+1)%2])
		var reloads sync.WaitGroup
		for range 4 {
			reloads.Go(func() {
				if _, err := g.Reload(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		reloads.Wait()
		if now := g.State().Revision(); now != before+1 && !g.watcherMade(before, now) {
			t.Fatalf("from revision %d to %d", before, now)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Reload(context.Background()); err == nil {
		t.Error("a file that is gone was read")
	}
}

// watcherMade reports whether the watcher of files made one of some revisions. A slow watcher
// may load content that has been replaced since, and then the current content again.
func (g *testGateway) watcherMade(from, to int64) bool {
	g.t.Helper()
	for n := from; n <= to; n++ {
		r, err := g.History().Revision(n)
		if err != nil {
			g.t.Fatal(err)
		}
		if r.GetMethod() == "file" {
			return true
		}
	}
	return false
}

// The answer describes the resource in the request, even in a dry run, not the
// live resource of the same name.
func TestAnswerDescribesThePutResource(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	certificate := func(name string) *adminv1.Certificate {
		return inlineCertificate("c", ca.Client(t, name))
	}
	g.put(certificate("first"))
	for _, dry := range []bool{true, false} {
		r := g.apply(store.Edit{DryRun: dry, Puts: puts(certificate("second"))})
		shown := r.Present(r.State.Get(adminv1.Kind_KIND_CERTIFICATE, "c")).(*adminv1.Certificate)
		if subject := shown.GetInfo().GetSubject(); !strings.Contains(subject, "second") {
			t.Errorf("dry run %v: the answer describes %s", dry, subject)
		}
		if want := int64(2); !dry && r.Revision != want || dry && r.Revision != 1 {
			t.Errorf("dry run %v: revision %d", dry, r.Revision)
		}
	}
}

// An edit that names one resource twice is refused, and does not gather files
// forever.
func TestACertificatePutTwiceIsRefused(t *testing.T) {
	ca := certstest.NewCA(t)
	g := start(t, "")
	bundle := func(ca *certstest.CA) *adminv1.TrustBundle {
		return &adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_Pem{Pem: string(ca.TrustPEM())}}
	}
	_, err := g.Apply(t.Context(), store.Edit{Puts: puts(bundle(ca), bundle(certstest.NewCA(t)))})
	var bad *invalid.Error
	if !errors.As(err, &bad) || bad.Worst() != invalid.Argument {
		t.Errorf("%v", err)
	}
}
