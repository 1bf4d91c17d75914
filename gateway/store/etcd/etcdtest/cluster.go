// Package etcdtest runs real etcd members for tests.
package etcdtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
)

// A Cluster is one or more members on loopback. It belongs to one test.
type Cluster struct {
	t       testing.TB
	members []*member
	token   string
}

type member struct {
	name, dir    string
	client, peer string // addresses
	cmd          *exec.Cmd
	log          bytes.Buffer
}

// Start starts a cluster and waits until it answers. The test skips if etcd is not installed,
// or fails if CI is set.
func Start(t testing.TB, members int) *Cluster {
	t.Helper()
	if !Installed() {
		if os.Getenv("CI") != "" {
			t.Fatal("etcd is not installed: apt-get install etcd-server")
		}
		t.Skip("etcd is not installed")
	}
	c := &Cluster{t: t, token: filepath.Base(t.TempDir())}
	for i := range members {
		name := fmt.Sprint("m", i)
		c.members = append(c.members, &member{name: name, dir: filepath.Join(t.TempDir(), name), client: sockettest.Free(t), peer: sockettest.Free(t)})
	}
	t.Cleanup(func() {
		for i := range c.members {
			c.Kill(i)
		}
	})
	for i := range c.members {
		c.Run(i)
	}
	c.Await()
	return c
}

// Installed reports whether the machine has etcd.
func Installed() bool {
	_, err := exec.LookPath("etcd")
	return err == nil
}

// Run starts a member that does not run.
func (c *Cluster) Run(i int) {
	c.t.Helper()
	var peers []string
	for _, m := range c.members {
		peers = append(peers, m.name+"=http://"+m.peer)
	}
	m := c.members[i]
	m.cmd = exec.Command("etcd", "--name", m.name, "--data-dir", m.dir,
		"--listen-client-urls", "http://"+m.client, "--advertise-client-urls", "http://"+m.client,
		"--listen-peer-urls", "http://"+m.peer, "--initial-advertise-peer-urls", "http://"+m.peer,
		"--initial-cluster", strings.Join(peers, ","), "--initial-cluster-token", c.token,
		"--heartbeat-interval", "100", "--election-timeout", "1000", "--log-level", "error", "--logger", "zap")
	m.cmd.Stderr, m.cmd.Stdout = &m.log, &m.log
	m.cmd.SysProcAttr = dieWithParent()
	if err := m.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
}

// Kill kills a member. Killing it again has no effect.
func (c *Cluster) Kill(i int) {
	m := c.members[i]
	if m.cmd == nil || m.cmd.Process == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	m.cmd = nil
	if c.t.Failed() {
		c.t.Logf("etcd %s: %s", m.name, m.log.String())
	}
}

// Wipe kills every member, and deletes their data. Run then starts an empty cluster.
func (c *Cluster) Wipe() {
	c.token += "-again"
	for i, m := range c.members {
		c.Kill(i)
		if err := os.RemoveAll(m.dir); err != nil {
			c.t.Fatal(err)
		}
	}
}

// Dir returns the data directory of a member.
func (c *Cluster) Dir(i int) string { return c.members[i].dir }

// Endpoints returns the client addresses of all members.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, m := range c.members {
		out = append(out, m.client)
	}
	return out
}

// Client returns a client of the cluster.
func (c *Cluster) Client() *clientv3.Client {
	c.t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), DialTimeout: time.Second, Logger: zap.NewNop()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { client.Close() })
	return client
}

// UseUpQuota makes etcd refuse writes, as it does once its database has reached its quota.
func (c *Cluster) UseUpQuota() {
	c.t.Helper()
	raise := &etcdserverpb.AlarmRequest{Action: etcdserverpb.AlarmRequest_ACTIVATE, Alarm: etcdserverpb.AlarmType_NOSPACE}
	if _, err := etcdserverpb.NewMaintenanceClient(c.Client().ActiveConnection()).Alarm(context.Background(), raise); err != nil {
		c.t.Fatal(err)
	}
}

// RestoreQuota ends the effect of UseUpQuota.
func (c *Cluster) RestoreQuota() {
	c.t.Helper()
	if _, err := c.Client().AlarmDisarm(context.Background(), &clientv3.AlarmMember{}); err != nil {
		c.t.Fatal(err)
	}
}

// Await waits until a quorum answers.
func (c *Cluster) Await() {
	c.t.Helper()
	client := c.Client()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		try, stop := context.WithTimeout(ctx, time.Second)
		_, err := client.Get(try, "x")
		stop()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			for _, m := range c.members {
				c.t.Logf("etcd %s: %s", m.name, m.log.String())
			}
			c.t.Fatalf("etcd does not answer: %v", err)
		}
	}
}
