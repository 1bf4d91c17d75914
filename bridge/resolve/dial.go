package resolve

import (
	"context"
	"net"
	"net/netip"
	"time"
)

const (
	// attemptDelay is how long an attempt to connect is alone before the next
	// address is tried beside it (RFC 8305, section 5).
	attemptDelay = 250 * time.Millisecond

	// maxAttempts is how many addresses of a name are tried.
	maxAttempts = 16
)

// Dial connects to an address, as net.Dialer does, until ctx ends. The addresses of
// a name are tried in the order of RFC 6724, but the families in turns, and the
// next as soon as one has failed or 250ms have passed: the first that answers is
// taken (RFC 8305). A net.Dialer would wait for one that does not answer for its
// share of the time there is, and for at least two seconds. With an error none of
// at most 16 could be connected to; it is that of the first.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return dial(ctx, net.DefaultResolver, network, address)
}

func dial(ctx context.Context, r *net.Resolver, network, address string) (net.Conn, error) {
	var d net.Dialer // keep-alive and TCP_NODELAY are on by default
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

// inTurns returns addresses with the two families in turns, that of the first
// first (RFC 8305, section 4), and no more than are tried.
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

// race makes attempts, n of them, until one succeeds, and returns when none is
// under way any more.
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
				cancel() // the others, which then end at once
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
