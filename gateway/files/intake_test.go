package files

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A fakeGateway refuses every edit of one resource, because a user of the
// resource rejects the change.
type fakeGateway struct {
	culprit string
	applied [][]string // resource names of each applied edit
	events  []string
}

func (g *fakeGateway) Live() *snapshot.Snapshot { return new(snapshot.Snapshot) }

func (g *fakeGateway) Gather(context.Context, store.Edit) (*snapshot.Material, error) {
	return new(snapshot.Material), nil
}

func (g *fakeGateway) ApplyRead(_ context.Context, e store.Edit, _ *snapshot.Material) (*store.Result, error) {
	var names []string
	result := &store.Result{State: new(store.State)}
	for _, ref := range e.Reread {
		names = append(names, ref.Name)
		result.Changes = append(result.Changes, store.Change{Kind: ref.Kind, Name: ref.Name, Action: adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED})
	}
	if slices.Contains(names, g.culprit) {
		return nil, invalid.Errorf(invalid.Argument, `route["path"].listeners[0]`, "does not match the key")
	}
	g.applied = append(g.applied, names)
	return result, nil
}

func (g *fakeGateway) FileEvent(ref store.Ref, e *adminv1.Event) {
	g.events = append(g.events, ref.Name+" "+e.GetType().String()+" "+e.GetMessage())
}

// If a changed file breaks another resource, the report names the changed
// file's resource, and other changes continue.
func TestRejectedFileDelaysNoOtherResource(t *testing.T) {
	g := &fakeGateway{culprit: "web"}
	in := &intake{gateway: g, log: hclog.NewNullLogger(), refused: map[store.Ref]snapshot.Digest{}}
	var changes []change
	for i, name := range []string{"a", "web", "b"} {
		b := &adminv1.TrustBundle{Name: name, Source: &adminv1.TrustBundle_File{File: "/" + name}}
		changes = append(changes, change{store.RefOf(b), b, snapshot.Digest{byte(i + 1)}})
	}
	for range 2 {
		in.apply(t.Context(), changes, new(snapshot.Material))
	}
	if got := fmt.Sprint(g.applied); got != "[[a] [b] [a] [b]]" {
		t.Errorf("applied %s", got)
	}
	if len(g.events) != 1 || !strings.HasPrefix(g.events[0], "web EVENT_TYPE_FILE_REFUSED") || !strings.Contains(g.events[0], `route["path"]`) {
		t.Errorf("events: %q", g.events)
	}
}

// A read that hangs delays its caller only for a limited time. It delays other reads
// only when the maximum number of reads hang.
func TestAReadThatHangsIsAbandoned(t *testing.T) {
	p := &Pool{slots: make(chan struct{}, 2), time: time.Minute}
	release := make(chan struct{})
	ended := make(chan struct{}, 2)
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		hung := make(chan struct{})
		go func() { <-hung; cancel() }()
		if err := p.Do(ctx, func() { close(hung); <-release; ended <- struct{}{} }); !errors.Is(err, context.Canceled) {
			t.Errorf("a read that hangs: %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
	}
	p.time = time.Millisecond
	if err := p.Do(ctx, func() { t.Error("a read above the limit") }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a read above the limit: %v", err)
	}
	close(release)
	<-ended
	<-ended
	p.time = time.Minute
	ran := false
	if err := p.Do(ctx, func() { ran = true }); err != nil || !ran {
		t.Errorf("a read after the hang: %v", err)
	}
	cancel()
}

func TestListOfPathsIsBounded(t *testing.T) {
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprintf("/etc/drawbridge/certificates/%02d.pem", i)
	}
	got := strings.Join(listed(many, maxPathBytes), ", ")
	if len(got) > maxPathBytes+20 || !strings.HasPrefix(got, many[0]+", "+many[1]) || !strings.HasSuffix(got, " more") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
	if got := listed(many[:2], maxPathBytes); !slices.Equal(got, many[:2]) {
		t.Errorf("%v", got)
	}
}
