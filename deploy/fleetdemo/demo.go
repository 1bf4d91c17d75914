package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// A demo is a fleet on this machine.
type demo struct {
	out              io.Writer
	drawbridge, etcd string // programs
	dir              string // holds all files
	host             string // the address of the etcd members

	good, bad *server
	endpoints []string // the URLs of the etcd members
	members   []*process
	gateways  []*process
	traffic   *traffic
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// step announces a step of the demo.
func (d *demo) step(format string, args ...any) { d.say("\n== "+format, args...) }

// show runs the demo.
func (d *demo) show(ctx context.Context) error {
	for _, part := range []func(context.Context) error{d.begin, d.configure, d.losses, d.returns, d.rollouts} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	d.traffic.stop()
	d.step("Done. The fleet accepted every write, rolled back the bad one, and answered every request.")
	return nil
}

func (d *demo) begin(ctx context.Context) error {
	d.say("A fleet on this machine: 3 members of etcd, 3 gateways, and an upstream that demands a client certificate.\nAll files are in %s.", d.dir)
	if err := d.prepare(); err != nil {
		return err
	}
	if err := d.startEtcd(); err != nil {
		return err
	}
	if err := d.startGateways(ctx); err != nil {
		return err
	}
	d.step("The gateways a, b and c have joined. They present client certificates to etcd, and share a seal key.")
	return d.run(ctx, "a", "gateways")
}

func (d *demo) configure(ctx context.Context) error {
	d.step("One write at gateway a configures all three.")
	if err := d.write(ctx, "a", "fleet.yaml", "--wait-for", "fleet", "--wait-timeout", "2m"); err != nil {
		return err
	}
	var addresses []string
	for _, id := range []string{"a", "b", "c"} {
		address, err := d.listener(ctx, id)
		if err != nil {
			return err
		}
		addresses = append(addresses, address)
	}
	d.say("Clients now send requests to %s. A client whose gateway is down uses the next one.", strings.Join(addresses, ", "))
	d.traffic = startTraffic(ctx, addresses)
	return d.observe(ctx)
}

func (d *demo) losses(ctx context.Context) error {
	d.step("Member etcd-2 is killed. Two of three members are a quorum, so gateway b still accepts a write.")
	d.members[1].kill()
	if err := d.write(ctx, "b", "two.yaml"); err != nil {
		return err
	}
	if err := d.observe(ctx); err != nil {
		return err
	}
	d.step("Gateway c is killed too. Gateways a and b serve its clients, and gateway a accepts a write.")
	d.gateways[2].kill()
	if err := d.write(ctx, "a", "three.yaml"); err != nil {
		return err
	}
	d.say("Gateway c is behind. It counts as connected until its lease ends, after 15 seconds:")
	if err := d.run(ctx, "a", "gateways"); err != nil {
		return err
	}
	return d.observe(ctx)
}

func (d *demo) returns(ctx context.Context) error {
	d.step("Both start again. Gateway c starts from its own copy, and follows what it missed.")
	if err := d.members[1].start(); err != nil {
		return err
	}
	if err := d.gateways[2].start(); err != nil {
		return err
	}
	if err := d.await(ctx, "gateway c runs the latest revision", func() bool { return d.atHead(3) }); err != nil {
		return err
	}
	address, err := d.listener(ctx, "c")
	if err != nil {
		return err
	}
	d.traffic.targets[2].Store(&address)
	if err := d.run(ctx, "c", "gateways"); err != nil {
		return err
	}
	return d.observe(ctx)
}

func (d *demo) rollouts(ctx context.Context) error {
	d.step("A rollout: the new upstream responds with 500. Only gateway a runs the revision, and the fleet rolls back by itself.")
	out, err := d.apply(ctx, "a", "broken.yaml", "--canaries", "zone=a", "--hold", "1m")
	if err == nil || !strings.Contains(out, "was rolled back") {
		return d.failure(fmt.Errorf("the bad revision was not rolled back: %v", err))
	}
	if err := d.await(ctx, "all gateways run the revision that rolls back", func() bool { return d.atHead(3) }); err != nil {
		return err
	}
	if err := d.observe(ctx); err != nil {
		return err
	}
	d.step("A rollout that succeeds: after the hold, all gateways run the revision.")
	if err := d.write(ctx, "b", "repaired.yaml", "--canaries", "zone=a", "--hold", "3s", "--wait-for", "fleet", "--wait-timeout", "2m"); err != nil {
		return err
	}
	if err := d.run(ctx, "c", "gateways"); err != nil {
		return err
	}
	return d.observe(ctx)
}

// observed is the number of requests that observe waits for.
const observed = 100

// observe waits for traffic, and prints its counts since the last call.
func (d *demo) observe(ctx context.Context) error {
	from := d.traffic.total.ok.Load()
	if err := d.await(ctx, "requests get 200", func() bool { return d.traffic.total.ok.Load() >= from+observed }); err != nil {
		return err
	}
	text, failed := d.traffic.since()
	d.say("Traffic: %s.", text)
	if failed > 0 {
		return d.failure(fmt.Errorf("%d requests failed at all gateways", failed))
	}
	return nil
}

// write makes a write that must succeed.
func (d *demo) write(ctx context.Context, gateway string, args ...string) error {
	began := time.Now()
	if _, err := d.apply(ctx, gateway, args...); err != nil {
		return d.failure(err)
	}
	d.say("This took %v.", time.Since(began).Round(time.Millisecond))
	return nil
}

// apply applies a file, and repeats that if etcd does not answer: it refuses writes while it
// elects a leader. Applying a file twice is safe.
func (d *demo) apply(ctx context.Context, gateway string, args ...string) (string, error) {
	for began := time.Now(); ; {
		out, err := d.command(ctx, gateway, append([]string{"apply", "-f"}, args...)...)
		if err == nil || ctx.Err() != nil || time.Since(began) > patience || !strings.Contains(out, "etcd") {
			return out, err
		}
		d.say("etcd did not answer in time. The demo tries again:")
	}
}

// run runs a command that must succeed.
func (d *demo) run(ctx context.Context, gateway string, args ...string) error {
	if _, err := d.command(ctx, gateway, args...); err != nil {
		return d.failure(err)
	}
	return nil
}

// command prints a command and its output.
func (d *demo) command(ctx context.Context, gateway string, args ...string) (string, error) {
	d.say("$ drawbridge %s --admin %s", strings.Join(args, " "), admin(gateway))
	out, err := d.output(ctx, gateway, args...)
	d.say("%s", strings.TrimRight(out, "\n"))
	if err != nil {
		err = fmt.Errorf("drawbridge %s: %w", args[0], err)
	}
	return out, err
}

// failure returns the error with the ends of all logs.
func (d *demo) failure(err error) error {
	for _, p := range append(d.members[:len(d.members):len(d.members)], d.gateways...) {
		err = errors.Join(err, errors.New(p.lastLines()))
	}
	return err
}

// explain prints what to try while the fleet runs.
func (d *demo) explain() {
	d.say("\nThe fleet keeps running. Try, from another terminal:\n\n  cd %s\n  export DRAWBRIDGE_ADMIN=%s", d.dir, admin("a"))
	for _, c := range []string{"status --fleet", "get all", "revisions", "apply -f two.yaml --wait-for fleet", "gateways --watch"} {
		d.say("  %s %s", d.drawbridge, c)
	}
	d.say("\nCtrl-C stops everything and removes the files.")
}

// stop stops everything.
func (d *demo) stop() {
	if d.traffic != nil {
		d.traffic.stop()
	}
	for _, p := range append(d.gateways, d.members...) {
		p.stop()
	}
	for _, s := range []*server{d.good, d.bad} {
		if s != nil {
			s.stop()
		}
	}
}
