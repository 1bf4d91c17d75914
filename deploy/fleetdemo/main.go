// Command fleetdemo shows a fleet on this machine: three members of etcd and three gateways
// as plain processes. It kills one of each under traffic, brings them back, and rolls out a
// bad and a good revision. It prints what happens, and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	program := flag.String("drawbridge", "drawbridge", "`program` of the gateways")
	keep := flag.Bool("keep", false, "keep the fleet running afterward, until Ctrl-C")
	flag.Parse()
	if err := run(ctx, *program, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, program string, keep bool) (err error) {
	d := &demo{out: os.Stdout}
	if d.drawbridge, err = exec.LookPath(program); err == nil {
		d.drawbridge, err = filepath.Abs(d.drawbridge)
	}
	if err != nil {
		return err
	}
	if d.etcd, err = exec.LookPath("etcd"); err != nil {
		return errors.New("etcd is not installed: on Debian, run \"apt-get install etcd-server\", and on other systems, put the program etcd into PATH")
	}
	if d.dir, err = os.MkdirTemp("", "fleet-demo-"); err != nil {
		return err
	}
	defer func() {
		d.stop()
		err = errors.Join(err, os.RemoveAll(d.dir))
	}()
	if err = d.show(ctx); err == nil && keep {
		d.explain()
		<-ctx.Done()
		d.say("\nStopping.")
	}
	if ctx.Err() != nil {
		return nil // an interrupt is not a failure
	}
	return err
}
