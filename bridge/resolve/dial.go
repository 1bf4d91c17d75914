package resolve

import (
	"context"
	"net"
	"net/netip"
	"time"
)

const (
	// attemptDelay is how long an attempt runs alone before the next address is
	// tried in parallel (RFC 8305, section 5).
	attemptDelay = 250 * time.Millisecond

	// maxAttempts is the number of addresses of a name that are tried.
	maxAttempts = 16
)

// Dial connects to an address, as net.Dialer does, until ctx ends. It tries the
// addresses of a name in the order of RFC 6724 with alternating families, each
// as soon as the previous one has failed or 250ms have passed, and returns the
// first connection (RFC 8305). A net.Dialer would wait for an unresponsive
// address for its share of the remaining time, and for at least two seconds.
// Dial tries at most 16 addresses, and returns the error of the first one.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return dial(ctx, net.DefaultResolver, network, address)
}

func dial(ctx context.Context, r *net.Resolver, network, address string) (net.Conn, error) {
	var d net.Dialer // a net.Dialer enables keep-alive and TCP_NODELAY by default
	host, port, err := net.SplitHostPort(address)
	if network != "tcp" || err != nil || host == "" {
		return d.DialContext(ctx, network, address)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return d.DialContext(ctx, network, address)
	}
	found, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	addrs := inTurns(found)
	if len(addrs) == 1 {
		return d.DialContext(ctx, network, net.JoinHostPort(addrs[0].String(), port))
	}
	return race(ctx, len(addrs), func(ctx context.Context, i int) (net.Conn, error) {
		return d.DialContext(ctx, network, net.JoinHostPort(addrs[i].String(), port))
	})
}

// inTurns returns at most maxAttempts addresses with alternating families,
// starting with the family of the first (RFC 8305, section 4).
func inTurns(found []netip.Addr) []netip.Addr {
	var same, other []netip.Addr
	for i, a := range found {
		found[i] = a.Unmap()
		if found[i].Is4() == found[0].Is4() {
			same = append(same, found[i])
		} else {
			other = append(other, found[i])
		}
	}
	var out []netip.Addr
	for i := range max(len(same), len(other)) {
		if i < len(same) {
			out = append(out, same[i])
		}
		if i < len(other) {
			out = append(out, other[i])
		}
	}
	return out[:min(len(out), maxAttempts)]
}

// race runs n attempts until one succeeds, and returns when all have ended.
func race(ctx context.Context, n int, attempt func(context.Context, int) (net.Conn, error)) (net.Conn, error) {
	type result struct {
		i    int
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result)
	started, running := 0, 0
	delay := time.NewTimer(attemptDelay)
	defer delay.Stop()
	next := func() {
		i := started
		started, running = started+1, running+1
		delay.Reset(attemptDelay)
		go func() {
			r := result{i: i}
			func() {
				defer catch(&r.err)
				r.conn, r.err = attempt(ctx, i)
			}()
			results <- r
		}()
	}
	var won net.Conn
	errs := make([]error, n)
	for next(); running > 0; {
		select {
		case r := <-results:
			running--
			errs[r.i] = r.err
			switch {
			case r.err == nil && won == nil:
				won = r.conn
				cancel() // ends the other attempts
			case r.err == nil:
				r.conn.Close()
			}
		case <-delay.C:
			if started == n || won != nil || ctx.Err() != nil {
				continue
			}
			next()
			continue
		}
		if won == nil && started < n && ctx.Err() == nil {
			next()
		}
	}
	if won != nil {
		return won, nil
	}
	return nil, errs[0]
}
