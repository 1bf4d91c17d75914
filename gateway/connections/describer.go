package connections

import (
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// batchSize is the number of connections that a describer describes in one call.
const batchSize = 256

// A describer writes the messages of the connections in a list. Two goroutines share the work,
// because most of it is one system call for each connection. A describer belongs to one list.
type describer struct {
	wanted   *filter
	messages [batchSize]*adminv1.Connection
	halves   [2]half
}

// A half holds the memory that one goroutine reuses, so that a list of 10,000 makes
// little garbage.
type half struct {
	found live.Connection
	names *names
}

func newDescriber(wanted *filter) *describer {
	return &describer{wanted: wanted, halves: [2]half{{names: newNames()}, {names: newNames()}}}
}

// describe returns the messages of up to batchSize entries, nil for those that the
// filter excludes. The next call overwrites the slice.
func (d *describer) describe(entries []numbered) []*adminv1.Connection {
	middle, messages := len(entries)/2, d.messages[:len(entries)]
	ended := make(chan any, 1)
	go func() {
		defer func() { ended <- recover() }()
		d.halves[1].describe(d.wanted, entries[middle:], messages[middle:])
	}()
	defer func() {
		// Pass a panic on to the caller, which recovers from the panics of its own
		// goroutine only.
		if p := <-ended; p != nil {
			panic(p)
		}
	}()
	d.halves[0].describe(d.wanted, entries[:middle], messages[:middle])
	return messages
}

func (h *half) describe(wanted *filter, entries []numbered, messages []*adminv1.Connection) {
	for i, e := range entries {
		messages[i] = nil
		if e.Describe(&h.found); wanted.matches(&h.found) {
			messages[i] = message(&h.found, wanted.now, h.names)
		}
	}
}
