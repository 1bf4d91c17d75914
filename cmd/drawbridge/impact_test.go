package main

import (
	"net"
	"testing"
)

// A prune, a delete and a dry run first show the connections that the change
// ends.
func TestDeleteShowsItsImpactFirst(t *testing.T) {
	s := gatewayShell(t)
	ctx := t.Context()
	upstream := "kind: Upstream\nname: up\nendpoints: [{address: \"127.0.0.1:1\"}]\nplaintext: {}\n"
	both := writeFile(t, t.TempDir(), "both.yaml", upstream+"---\nkind: Listener\nname: web\naddress: \"unix:"+t.TempDir()+"/s\"\nprotocol: HTTP\nupstream: up\n")
	alone := writeFile(t, t.TempDir(), "alone.yaml", upstream)
	s.run(ctx, "apply", "-f", both, "--dry-run").want(t, 0, "The change ends no connection.")
	s.run(ctx, "apply", "-f", both).want(t, 0)
	cl := dial(t, s.env["DRAWBRIDGE_ADMIN"])
	status, err := cl.WholeStatus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", status.GetListeners()[0].GetBoundAddress()[len("unix:"):])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for open := int64(0); open == 0; { // the listener has accepted it
		if status, err = cl.WholeStatus(ctx); err != nil {
			t.Fatal(err)
		}
		open = status.GetListeners()[0].GetConnections()
	}
	const impact = "Listener   web    1        0         0          none            -"
	s.run(ctx, "delete", "listener", "web", "--dry-run").want(t, 0, impact, "Dry run")
	s.run(ctx, "apply", "-f", alone, "--prune", "--dry-run").want(t, 0, impact, "Dry run")
	s.run(ctx, "apply", "-f", alone, "--prune", "--dry-run", "-o", "json").want(t, 0, `"connectionsClosed": "1"`)
	s.run(ctx, "delete", "listener", "web").want(t, 0, impact, "deleted   Listener   web", "Revision 2 is live")
	s.run(ctx, "delete", "upstream", "up").want(t, 0, "Upstream   up     0        0         0          0               1")
}
