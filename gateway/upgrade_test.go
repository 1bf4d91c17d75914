package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/gateway/handover"
	"github.com/drawbridge-gateway/drawbridge/gateway/systemd"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// TestSuccessor acts as the new process of an upgrade. It closes the sockets that it gets.
func TestSuccessor(t *testing.T) {
	p, err := handover.Inherit()
	if err != nil {
		t.Fatal(err)
	}
	if p == nil {
		t.Skip("another test runs this one in a separate process")
	}
	e, err := p.Take(t.Context(), "v2")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range e.Sockets {
		f.Close()
	}
	if _, err := p.Ready(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Accepting(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Serving()
}

// A heldLog blocks the log line that begins the drain until release is closed.
type heldLog struct {
	to      *logtest.Buffer
	release chan struct{}
}

func (l *heldLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(`"draining"`)) {
		<-l.release
	}
	return l.to.Write(p)
}

// When an upgrade has ended, no new client reaches the old process, however long its drain
// takes to begin. Its status says that the listeners were handed over.
func TestTheOldProcessOfAnUpgradeAcceptsNoMoreClients(t *testing.T) {
	held := &heldLog{to: new(logtest.Buffer), release: make(chan struct{})}
	release := func() {
		select {
		case <-held.release:
		default:
			close(held.release)
		}
	}
	g := start(t, "", func(o *Options) {
		o.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: held, JSONFormat: true})
		o.Sockets = handover.New((*systemd.Manager)(nil), nil, hclog.NewNullLogger())
	})
	t.Cleanup(release)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(c net.Conn) { io.Copy(c, c) })
	g.put(plainUpstream("up", l.Addr().String()), tcpListener("web", "127.0.0.1:0"))
	address := g.address("web")
	open := dial(t, address)
	open.echo(t, "before")

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	upgraded, err := g.Upgrade(t.Context(), handover.Program{Path: self, Args: []string{"-test.run=^TestSuccessor$"}})
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new client: %v", err)
		if err == nil {
			conn.Close()
		}
	}
	want := fmt.Sprintf("process %d has accepted the clients since the upgrade", upgraded.PID)
	if s := g.listener("web"); s.GetState() != adminv1.ListenerState_LISTENER_STATE_HANDED_OVER || s.GetReason() != want || s.GetConnections() != 1 || s.GetBoundAddress() != address {
		t.Errorf("%v", s)
	}
	if s := g.Status(); len(s.GetListeners()) != 1 || len(s.GetProblems()) != 0 {
		t.Errorf("%v", s)
	}
	open.echo(t, "after")
	release()
	open.Close()
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	if s := g.listener("web"); s.GetState() != adminv1.ListenerState_LISTENER_STATE_HANDED_OVER || s.GetConnections() != 0 {
		t.Errorf("%v", s)
	}
}

// A gateway that shuts down does not report its listeners as down.
func TestListenersDrainAtAShutdown(t *testing.T) {
	g := start(t, "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(c net.Conn) { io.Copy(c, c) })
	g.put(plainUpstream("up", l.Addr().String()), tcpListener("web", "127.0.0.1:0"))
	open := dial(t, g.address("web"))
	open.echo(t, "before")
	stopped := make(chan error, 1)
	go func() { stopped <- g.stop() }()
	eventually(t, "the listener drains", func() bool {
		return g.listener("web").GetState() == adminv1.ListenerState_LISTENER_STATE_DRAINING
	})
	if all := g.Status().GetListeners(); len(all) != 1 || all[0].GetReason() != "the gateway is shutting down" {
		t.Errorf("%v", all)
	}
	open.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
