package connections

import (
	"cmp"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Options hold the sources of connections. All fields are required.
type Options struct {
	// Clients calls f with each connection of a client. Upstreams calls f with each
	// connection to an upstream that does not belong to a single client. f calls only
	// the entry's ID.
	Clients, Upstreams func(f func(live.Entry))

	Logger hclog.Logger
}

// A Connections finds the open connections of a gateway. Its methods may be called
// concurrently.
type Connections struct{ o Options }

// New returns a Connections.
func New(o Options) *Connections { return &Connections{o} }

// EachConnection calls yield with each open connection that matches the filter and has a
// number above after, in ascending order, until yield returns false. The
// error is an *invalid.Error.
func (c *Connections) EachConnection(f *adminv1.ConnectionFilter, after uint64, yield func(number uint64, m *adminv1.Connection) bool) error {
	wanted, err := parse(f)
	if err != nil {
		return err
	}
	names := newNames()
	c.each(wanted, after, func(_ live.Entry, found *live.Connection) bool {
		return yield(found.ID, message(found, wanted.now, names))
	})
	return nil
}

// each calls yield with each connection that matches, and its description, which the next
// call overwrites.
func (c *Connections) each(wanted *filter, after uint64, yield func(live.Entry, *live.Connection) bool) {
	found := new(live.Connection) // one for all: a list of 10,000 makes little garbage
	for _, e := range c.entries(wanted, after) {
		if e.Describe(found); wanted.matches(found) && !yield(e.Entry, found) {
			return
		}
	}
}

// entries returns the connections with a number above after, in ascending order, without
// those that the filter excludes by number. It reads connections to upstreams first: if
// one joins a client's connection meanwhile, the client's description includes it.
func (c *Connections) entries(wanted *filter, after uint64) []numbered {
	var all []numbered
	add := func(e live.Entry) {
		if n := e.ID(); n > after && wanted.ids.accepts(n) {
			all = append(all, numbered{n, e})
		}
	}
	c.o.Upstreams(add)
	c.o.Clients(add)
	slices.SortFunc(all, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	return all
}

// A numbered is an entry with its number, cached for sorting.
type numbered struct {
	number uint64
	live.Entry
}

// CloseConnections closes the open connections that match the filter within the grace
// period, and returns their number. The error is an *invalid.Error.
func (c *Connections) CloseConnections(f *adminv1.ConnectionFilter, grace time.Duration) (int, error) {
	wanted, err := parse(f)
	if err != nil {
		return 0, err
	}
	n := 0
	c.each(wanted, 0, func(e live.Entry, _ *live.Connection) bool {
		e.Close(grace)
		n++
		return true
	})
	c.o.Logger.Info("connections closing", "connections", n, "grace", grace)
	return n, nil
}
