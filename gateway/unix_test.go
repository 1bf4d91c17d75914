package gateway

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A listener's unix socket has the mode in its resource. A new mode applies to
// the existing socket.
func TestAUnixSocketHasTheModeOfItsListener(t *testing.T) {
	g := start(t, "")
	path := filepath.Join(shortDir(t), "l.sock")
	mode := func() os.FileMode {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	l := bare("l", "unix:"+path)
	g.put(l)
	if mode() != 0o600 {
		t.Errorf("by default %o", mode())
	}
	l.Unix = &adminv1.UnixOptions{Mode: "0666"}
	g.apply(store.Edit{DryRun: true, Puts: puts(l)})
	if mode() != 0o600 {
		t.Errorf("a dry run made it %o", mode())
	}
	before := g.listener("l").GetAccepted()
	g.put(l)
	if mode() != 0o666 || g.listener("l").GetAccepted() != before {
		t.Errorf("after the change %o", mode())
	}
	l.Unix.Mode = "0660"
	l.Protocol = adminv1.Protocol_PROTOCOL_HTTP // hands over the socket
	g.put(l)
	if mode() != 0o660 {
		t.Errorf("after a hand-over %o", mode())
	}
	for field, o := range map[string]*adminv1.UnixOptions{
		"resources[0].unix.mode": {Mode: "0444"}, "resources[0].unix.group": {Group: "no-such-group"},
	} {
		l.Unix = o
		if _, err := g.Apply(t.Context(), store.Edit{Puts: puts(l)}); err == nil || mode() != 0o660 {
			t.Errorf("%s: %v, mode %o", field, err, mode())
		}
	}
}
