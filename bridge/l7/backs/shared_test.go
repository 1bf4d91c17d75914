package backs

import (
	"context"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// When the last request that waits for a connection leaves, it cancels the dial. A
// request that arrives before the dial has ended must not join this dial, because it
// would fail too.
func TestNoRequestJoinsACanceledDial(t *testing.T) {
	canceled := false
	d := &dialing{cancel: func() { canceled = true }, done: make(chan struct{})}
	p := &pool{back: &Pools{options: Options{Protocol: HTTP2, Upstream: new(upstream.Upstream)}}, hostPool: hostPool{endpoint: new(upstream.Endpoint)}}
	p.sharedConns.dials = []*dialing{d}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, _, err := p.awaitShared(ctx, nil); err != context.Canceled {
		t.Fatal(err)
	}
	if !canceled || len(p.sharedConns.dials) != 0 {
		t.Errorf("the dial was canceled: %v; %d dials can be joined", canceled, len(p.sharedConns.dials))
	}
}
