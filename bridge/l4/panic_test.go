package l4_test

import (
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
)

// A panic between the dial and the start of the splice closes both connections.
func TestPanicAfterTheDialClosesBothSides(t *testing.T) {
	back := listen(t, "tcp")
	log := new(logtest.Buffer)
	s := l4.New(l4.Options{
		Table:  func() *l4.Table { return &l4.Table{Default: to(group(plain(back)))} },
		Logger: hclog.New(&hclog.LoggerOptions{Output: log}),
	})
	restore := s.BreakSplices()
	ln := listen(t, "tcp")
	g := &gate{Server: s, network: "tcp", address: ln.Addr().String(), served: make(chan error, 1)}
	go func() { g.served <- s.Serve(ln) }()

	g.wantRefused(t)
	accept(t, back, nil).WantEnd(t, "", reset)
	eventually(t, "the connection has ended", func() bool { return s.Stats().Open == 0 })
	if text := log.String(); !strings.Contains(text, "panic while serving a connection") {
		t.Errorf("log: %s", text)
	}
	s.StopAccepting()
	<-g.served
	restore()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
