package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// An etcdCluster is real members of etcd that accept only certificates of one authority.
type etcdCluster struct {
	clients, peers []string // URLs
	dir            string   // contains the data of the members, and the files of flags and env
	token          string
	more           []string // further flags of the members

	members []*process // nil: never started
	through [][]string // for each member, a command line that runs another one where the member runs; nil: none
}

// startEtcd starts members with further flags. It does not wait for them.
func startEtcd(t testing.TB, a *authority, members int, flags ...string) *etcdCluster {
	t.Helper()
	// On a host of its own, the port of a member is not given to another server while the
	// member is down.
	host := net.IPv4(127, byte(1+rand.IntN(60)), byte(rand.IntN(256)), byte(1+rand.IntN(254)))
	c := newEtcd(t, a, host, flags...)
	c.choosePorts(t, host.String(), members)
	for i := range members {
		c.start(t, i)
	}
	return c
}

// newEtcd returns a cluster without members, whose members may listen on a host.
func newEtcd(t testing.TB, a *authority, host net.IP, flags ...string) *etcdCluster {
	t.Helper()
	need(t, "etcd")
	c := &etcdCluster{dir: shortDir(t), more: flags}
	c.token = c.dir
	member := issue(t, a.ca, pki.LeafOptions{CommonName: "etcd", IPs: []net.IP{host, net.IPv4(127, 0, 0, 1)}, Usage: pki.Both})
	for name, data := range map[string][]byte{
		"ca.pem": a.ca.RootPEM(), "etcd.pem": member.ChainPEM, "etcd-key.pem": member.KeyPEM,
		"client.pem": a.client.ChainPEM, "client-key.pem": a.client.KeyPEM, "seal.key": []byte(strings.Repeat("a", 64) + "\n"),
	} {
		writeFile(t, filepath.Join(c.dir, name), data)
	}
	return c
}

// choosePorts adds members. Their ports are free again when it returns.
func (c *etcdCluster) choosePorts(t testing.TB, host string, members int) {
	t.Helper()
	for range members {
		var chosen [2]string
		for i := range chosen {
			l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close() // not until all ports are chosen, so that they differ
			chosen[i] = l.Addr().String()
		}
		c.add(chosen[0], chosen[1])
	}
}

// add adds a member with its addresses for clients and for other members.
func (c *etcdCluster) add(client, peer string) {
	c.clients, c.peers = append(c.clients, "https://"+client), append(c.peers, "https://"+peer)
	c.members, c.through = append(c.members, nil), append(c.through, nil)
}

// name returns the name of a member. Its data is in the directory of that name.
func (c *etcdCluster) name(i int) string { return fmt.Sprint("etcd-", i+1) }

// initial returns the names and URLs of all members.
func (c *etcdCluster) initial() string {
	var all []string
	for i, peer := range c.peers {
		all = append(all, c.name(i)+"="+peer)
	}
	return strings.Join(all, ",")
}

// start starts a member that does not run.
func (c *etcdCluster) start(t testing.TB, i int) {
	t.Helper()
	name := c.name(i)
	line := append(slices.Clone(c.through[i]), "etcd",
		"--name", name, "--data-dir", name, "--logger", "zap", "--log-level", "error", "--initial-cluster", c.initial(), "--initial-cluster-token", c.token,
		"--heartbeat-interval", "500", "--election-timeout", "5000", // so that a busy machine does not change the leader
		"--listen-client-urls", c.clients[i], "--advertise-client-urls", c.clients[i], "--listen-peer-urls", c.peers[i], "--initial-advertise-peer-urls", c.peers[i],
		"--client-cert-auth", "--trusted-ca-file", "ca.pem", "--cert-file", "etcd.pem", "--key-file", "etcd-key.pem",
		"--peer-client-cert-auth", "--peer-trusted-ca-file", "ca.pem", "--peer-cert-file", "etcd.pem", "--peer-key-file", "etcd-key.pem")
	cmd := exec.Command(line[0], append(line[1:], c.more...)...)
	cmd.Dir = c.dir
	p := startCmd(t, cmd)
	c.members[i] = p
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: %s", name, tail(p.out.String()))
		}
	})
}

// flags returns the flags of a gateway that joins the fleet in the cluster.
func (c *etcdCluster) flags() []string {
	at := func(name string) string { return filepath.Join(c.dir, name) }
	return []string{"--store", "etcd", "--seal-key-file", at("seal.key"), "--etcd-endpoints", strings.Join(c.clients, ","),
		"--etcd-ca", at("ca.pem"), "--etcd-cert", at("client.pem"), "--etcd-key", at("client-key.pem")}
}

// etcdctl returns a command for the cluster.
func (c *etcdCluster) etcdctl(ctx context.Context, args ...string) *exec.Cmd {
	line := append(slices.Clone(c.through[0]), "etcdctl", "--endpoints", strings.Join(c.clients, ","),
		"--cacert", "ca.pem", "--cert", "client.pem", "--key", "client-key.pem", "--command-timeout", testTimeout.String(), "--dial-timeout", testTimeout.String())
	cmd := exec.CommandContext(ctx, line[0], append(line[1:], args...)...)
	cmd.Dir = c.dir
	return cmd
}

// fill writes values until the quota of the database is used up.
func (c *etcdCluster) fill(t testing.TB) {
	t.Helper()
	value := strings.Repeat("x", 1_000_000)
	for end := time.Now().Add(testTimeout); ; {
		cmd := c.etcdctl(longContext(t), "put", "other/prefix")
		cmd.Stdin = strings.NewReader(value)
		out, err := cmd.CombinedOutput()
		switch {
		case err != nil && strings.Contains(string(out), "database space exceeded"):
			return
		case time.Now().After(end):
			t.Fatalf("the quota is not used up: %v\n%s", err, out)
		}
	}
}

// lead makes a member the leader.
func (c *etcdCluster) lead(t testing.TB, name string) {
	t.Helper()
	eventually(t, name+" leads", func() bool {
		list, err := c.etcdctl(longContext(t), "member", "list").Output()
		if err != nil {
			return false
		}
		before, _, ok := strings.Cut(string(list), ", started, "+name+",")
		if !ok {
			return false
		}
		id := before[strings.LastIndex(before, "\n")+1:]
		return c.etcdctl(longContext(t), "move-leader", id).Run() == nil
	})
}
