package splicetest

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A Conversation is a script for the two sides of one connection, drawn from a seed.
// Side 0 is the client, side 1 the upstream. It never sleeps: a side that pauses
// waits for an event.
type Conversation struct {
	sides   [2]script
	aborted chan struct{} // closed when a side resets the connection or the connection fails
	once    sync.Once
}

// A script describes the bytes that one side sends.
type script struct {
	payload []byte
	parts   []*part
	ends    string // clean, truncated or reset
	chunk   int    // the largest write or read
	seed    uint64
}

// A part is a section of a script that ends at byte to, or at the script's end.
type part struct {
	to         int
	end        bool
	read       chan struct{} // closed when the other side has read it
	writeAfter *part         // a part of the other script that must be read before this part is written
	readAfter  *part         // a part of the other script that must be read before this part is read
	update     keyUpdate     // sent before the part
}

type keyUpdate int

const (
	noUpdate keyUpdate = iota
	update
	updateRequested // requests an update of the other side too
)

// Bounds limit the contents of a conversation.
type Bounds struct {
	Largest     int  // bytes that a side sends
	Incomplete  bool // resets, and truncation of TLS streams
	Truncatable [2]bool
}

// Converse draws a conversation. It always terminates: the parts of both sides have
// one common order, and each part waits only for earlier ones.
func Converse(seed uint64, m Bounds) *Conversation {
	rng := rand.New(rand.NewPCG(seed, 0))
	c := &Conversation{aborted: make(chan struct{})}
	for side := range c.sides {
		s := &c.sides[side]
		s.ends = Clean
		s.seed = rng.Uint64()
		size := []int{0, rng.IntN(1000), rng.IntN(1 + m.Largest/20), rng.IntN(1 + m.Largest)}[rng.IntN(4)]
		s.payload = make([]byte, size)
		Fill(s.payload, s.seed)
		s.chunk = []int{1 + size/100, 1400, 1 << 14, 1 << 24}[rng.IntN(4)]
		for range rng.IntN(min(6, size+1)) {
			s.parts = append(s.parts, &part{to: 1 + rng.IntN(size)})
		}
		s.parts = append(s.parts, &part{to: size})
		for i, p := range s.parts { // in ascending order
			if i > 0 {
				p.to = max(p.to, s.parts[i-1].to)
			}
		}
		s.parts = append(s.parts, &part{to: size, end: true})
	}
	if m.Incomplete && rng.IntN(4) == 0 {
		side := rng.IntN(2)
		s := &c.sides[side]
		s.ends = Reset
		if m.Truncatable[side] && rng.IntN(2) == 0 {
			s.ends = Truncated
		}
	}
	c.order(rng)
	return c
}

// order draws the order of all parts, and which part waits for which.
func (c *Conversation) order(rng *rand.Rand) {
	// A side that receives a requested KeyUpdate must write before it can read more. So
	// no update is requested if a side may not be reading.
	holds := rng.IntN(2) == 0
	next, last := [2]int{}, [2]*part{}
	for {
		side := rng.IntN(2)
		if next[side] == len(c.sides[side].parts) {
			side = 1 - side
		}
		s := &c.sides[side]
		if next[side] == len(s.parts) {
			return
		}
		p := s.parts[next[side]]
		next[side]++
		p.read = make(chan struct{})
		if rng.IntN(2) == 0 {
			p.writeAfter = last[1-side]
		}
		if holds && rng.IntN(2) == 0 {
			p.readAfter = last[1-side]
		}
		p.update = keyUpdate(rng.IntN(3))
		if holds {
			p.update = min(p.update, update)
		}
		last[side] = p
		if p.end && s.ends != Clean {
			return // the other parts are never sent
		}
	}
}

// Fill fills p with the bytes of a seed.
func Fill(p []byte, seed uint64) {
	key := [32]byte{}
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	rand.NewChaCha8(key).Read(p)
}

// abort releases every waiting side.
func (c *Conversation) abort() { c.once.Do(func() { close(c.aborted) }) }

// wait waits until the other side has read p.
func (c *Conversation) wait(p *part) {
	if p == nil {
		return
	}
	select {
	case <-p.read:
	case <-c.aborted:
	}
}

// An Outcome is what one side received from the other.
type Outcome struct {
	got    int
	intact bool // the received bytes equal the sent ones
	how    string
}

// Timeout is how long a conversation may take on a busy machine.
const Timeout = 2 * time.Minute

// play plays one side and closes the connection.
func (c *Conversation) play(side int, p *Peer) Outcome {
	timer := time.AfterFunc(Timeout, func() { p.Raw.Conn.Close() })
	defer timer.Stop()
	defer p.Raw.Conn.Close()
	received := make(chan Outcome, 1)
	go func() { received <- c.receive(side, p) }()
	err := c.send(side, p)
	if err != nil {
		c.abort()
	}
	seen := <-received
	if err != nil {
		// The kernel reports a reset once, here to the writer. To the reader, the
		// stream may have seemed to end.
		seen.how = p.How(err)
		return seen
	}
	// A close with unread bytes, such as the answer to a KeyUpdate, would reset
	// the connection and lose bytes in transit.
	p.Raw.Conn.(interface{ CloseWrite() error }).CloseWrite()
	io.Copy(io.Discard, p.Raw.Conn)
	return seen
}

// send sends a side's script.
func (c *Conversation) send(side int, p *Peer) error {
	s := &c.sides[side]
	rng := rand.New(rand.NewPCG(s.seed, 1))
	at := 0
	for _, part := range s.parts {
		c.wait(part.writeAfter)
		if r := p.Raw.records.Load(); r != nil && part.update != noUpdate {
			r.update(part.update == updateRequested)
		}
		for at < part.to {
			n := min(part.to-at, 1+rng.IntN(s.chunk))
			if _, err := p.Write(s.payload[at : at+n]); err != nil {
				return err
			}
			at += n
		}
	}
	switch s.ends {
	case Reset:
		p.Reset()
		c.abort()
	case Truncated:
		p.Raw.Conn.(*net.TCPConn).CloseWrite()
		c.abort()
	default:
		return p.CloseWrite()
	}
	return nil
}

// receive reads the other side's script and checks it.
func (c *Conversation) receive(side int, p *Peer) (seen Outcome) {
	seen.intact = true
	s := &c.sides[1-side]
	rng := rand.New(rand.NewPCG(s.seed, 2))
	buf := make([]byte, min(s.chunk, 1<<20))
	for _, part := range s.parts {
		c.wait(part.readAfter)
		for seen.got < part.to || part.end {
			window := buf[:1]
			if !part.end {
				window = buf[:min(part.to-seen.got, 1+rng.IntN(len(buf)))]
			}
			n, err := p.Read(window)
			if from := s.payload[seen.got:]; n > len(from) || string(window[:n]) != string(from[:n]) {
				seen.intact = false
				c.abort()
				return seen
			}
			seen.got += n
			if err != nil {
				if seen.how = p.How(err); seen.how != Clean || !part.end {
					c.abort()
				}
				if part.end && part.read != nil {
					close(part.read)
				}
				return seen
			}
		}
		if part.read != nil {
			close(part.read)
		}
	}
	return seen
}

// Check returns the fault in the bytes that a side received, or "".
func (c *Conversation) Check(side int, seen Outcome) string {
	if c.sides[side].ends != Clean {
		return "" // a side that breaks the connection sees its own failure
	}
	s := &c.sides[1-side]
	switch {
	case !seen.intact:
		return fmt.Sprintf("got bytes that were not sent, after %d of %d", seen.got, len(s.payload))
	case s.ends == Clean && (seen.how != Clean || seen.got != len(s.payload)):
		return fmt.Sprintf("got %d bytes of %d and a %s end, want all and a clean one", seen.got, len(s.payload), seen.how)
	case s.ends == Reset && seen.how != Reset,
		s.ends == Truncated && seen.how != Reset && seen.how != Truncated:
		return fmt.Sprintf("saw a %s end, though the other side's was a %s one", seen.how, s.ends)
	}
	return ""
}

// PlayBoth plays both sides.
func (c *Conversation) PlayBoth(client, upstream *Peer) (outcomes [2]Outcome) {
	var wg sync.WaitGroup
	for side, p := range []*Peer{client, upstream} {
		wg.Go(func() { outcomes[side] = c.play(side, p) })
	}
	wg.Wait()
	return outcomes
}

// RecordSecrets makes config record its traffic secrets.
func RecordSecrets(config *tls.Config) *Secrets {
	s := new(Secrets)
	if config != nil {
		config.KeyLogWriter = s
	}
	return s
}

// Transfer returns a conversation in which both sides send size bytes at once.
func Transfer(size int) *Conversation {
	c := &Conversation{aborted: make(chan struct{})}
	for side := range c.sides {
		s := script{ends: Clean, seed: uint64(side), chunk: 100_000, payload: make([]byte, size)}
		Fill(s.payload, s.seed)
		s.parts = []*part{{to: size}, {to: size, end: true}}
		c.sides[side] = s
	}
	return c
}

// Sizes returns how many bytes each side sends, and whether both end cleanly.
func (c *Conversation) Sizes() (client, upstream int, clean bool) {
	a, b := &c.sides[0], &c.sides[1]
	return len(a.payload), len(b.payload), a.ends == Clean && b.ends == Clean
}

// RecordSize returns a record size that does not cut a side's script into too many
// records.
func (c *Conversation) RecordSize(isClient bool) int {
	side := 1
	if isClient {
		side = 0
	}
	return 1 + len(c.sides[side].payload)/1000
}
