package connections

import (
	"math"
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
	d := newDescriber(wanted)
	c.batches(wanted, after, func(entries []numbered) bool {
		for part := range slices.Chunk(entries, batchSize) {
			for i, m := range d.describe(part) {
				if m != nil && !yield(part[i].number, m) {
					return false
				}
			}
		}
		return true
	})
	return nil
}

// firstBatch is the number of connections in the first batch: a page and one more connection,
// which shows that the page is not the last.
const firstBatch = 1024

// batches calls yield with the connections with a number above after, in ascending order, until
// yield returns false. It leaves out those that the filter excludes by number, and those that
// begin meanwhile.
func (c *Connections) batches(wanted *filter, after uint64, yield func([]numbered) bool) {
	until := uint64(math.MaxUint64)
	// Batches grow because every batch looks at all connections.
	for size := firstBatch; ; size *= 4 {
		entries, last := c.entries(wanted, after, until, size)
		if !yield(entries) || len(entries) < size {
			return
		}
		after, until = entries[size-1].number, last
	}
}

// entries returns the first connections with a number above after and at most until, in
// ascending order, without those that the filter excludes by number, and the highest number.
// It reads connections to upstreams first: if one joins a client's connection meanwhile, the
// client's description includes it.
func (c *Connections) entries(wanted *filter, after, until uint64, most int) (entries []numbered, last uint64) {
	first := lowest{wanted: most}
	add := func(e live.Entry) {
		if n := e.ID(); n > after && n <= until && wanted.ids.accepts(n) {
			first.add(n, e)
			last = max(last, n)
		}
	}
	c.o.Upstreams(add)
	c.o.Clients(add)
	return first.sorted(), last
}

// CloseConnections closes the open connections that match the filter within the grace
// period, and returns their number. The error is an *invalid.Error.
func (c *Connections) CloseConnections(f *adminv1.ConnectionFilter, grace time.Duration) (int, error) {
	wanted, err := parse(f)
	if err != nil {
		return 0, err
	}
	n, found := 0, new(live.Connection)
	c.batches(wanted, 0, func(entries []numbered) bool {
		for _, e := range entries {
			if e.Describe(found); wanted.matches(found) {
				e.Close(grace)
				n++
			}
		}
		return true
	})
	c.o.Logger.Info("connections closing", "connections", n, "grace", grace)
	return n, nil
}
