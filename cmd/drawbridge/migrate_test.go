package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
)

// A gateway moves to a fleet and back with the commands of docs/fleet.md, and keeps its
// configuration and its history.
func TestAGatewayMovesToAFleetAndBack(t *testing.T) {
	c := etcdtest.Start(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 3*testTimeout)
	defer cancel()
	dir := tempDir(t)
	key := writeFile(t, dir, "seal.key", strings.Repeat("a", 64)+"\n")
	data, socket := filepath.Join(dir, "data"), "unix:"+filepath.Join(dir, "admin.sock")
	s := shell{env: map[string]string{"DRAWBRIDGE_ADMIN": socket, "DRAWBRIDGE_DATA_DIR": data, "DRAWBRIDGE_SEAL_KEY_FILE": key}}
	fleet := []string{"--etcd-endpoints", "http://" + c.Endpoints()[0]}
	serving := func(args ...string) func() {
		g := start(t, nil, append([]string{"serve", "--data-dir", data, "--admin", socket, "--seal-key-file", key}, args...)...)
		g.log.until(t, "ready: version", 1)
		return func() {
			if code := g.stop(); code != 0 {
				t.Errorf("serve ended with %d", code)
			}
		}
	}
	upstream := func(name string) string {
		return writeFile(t, dir, name+".yaml", "kind: Upstream\nname: "+name+"\nendpoints: [{address: 127.0.0.1:1}]\nplaintext: {}\n")
	}
	migrate := func(from, to string, more ...string) result {
		return s.run(ctx, append(append([]string{"store", "migrate", "--from", from, "--to", to}, fleet...), more...)...)
	}

	migrate("bolt", "etcd", "--data-dir", dir+"/none").want(t, exit.Failure, "holds no state")
	migrate("bolt", "bolt").want(t, exit.Usage, "--from bolt --to etcd")
	s.run(ctx, "store", "migrate", "--from", "bolt", "--to", "etcd").want(t, exit.Usage, "--etcd-endpoints is missing")
	stop := serving()
	s.run(ctx, "apply", "-f", upstream("a"), "--comment", "first").want(t, exit.OK)
	s.run(ctx, "apply", "-f", upstream("b"), "--comment", "second").want(t, exit.OK)
	s.run(ctx, "apply", "-f", upstream("b"), "--wait-for", "fleet").want(t, exit.Invalid, "belongs to no fleet")
	migrate("bolt", "etcd").want(t, exit.Failure, "holds this data directory")
	stop()
	migrate("bolt", "etcd").want(t, exit.OK, "Revision 2 is in etcd: 2 resources, 2 stored revisions. Start the gateway with --store etcd.")
	migrate("bolt", "etcd").want(t, exit.OK, "An earlier run has moved everything.")
	s.run(ctx, "serve").want(t, exit.Failure, "holds a copy of a fleet's configuration")

	stop = serving(append(fleet, "--store", "etcd", "--gateway-id", "one", "--gateway-labels", "zone=a")...)
	s.run(ctx, "revisions").want(t, exit.OK, "first", "second")
	s.run(ctx, "apply", "-f", upstream("c"), "--wait-for", "fleet").want(t, exit.OK, "Revision 3 is live")
	s.run(ctx, "status", "--fleet").want(t, exit.OK, "1 gateway, latest revision 3: 1 running it without problems.")
	s.run(ctx, "gateways", "-o", "json").want(t, exit.OK, `"zone": "a"`)
	s.run(ctx, "rollback", "1").want(t, exit.OK, "Revision 4 is live")
	stop()
	migrate("etcd", "bolt").want(t, exit.OK, "Revision 4 is in "+data+": 1 resources, 4 stored revisions. Start the gateway without --store etcd.")

	stop = serving()
	s.run(ctx, "get", "upstreams").want(t, exit.OK, "a")
	s.run(ctx, "rollback", "3").want(t, exit.OK, "Revision 5 is live")
	s.run(ctx, "get", "upstreams").want(t, exit.OK, "a", "b", "c")
	stop()
}
