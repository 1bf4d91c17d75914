package l4_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A conversation is a script for the two sides of one connection, drawn from a seed.
// Side 0 is the client, side 1 the upstream. It never waits for time: a side that
// pauses waits for an event.
type conversation struct {
	sides  [2]script
	broken chan struct{} // closed when a side resets the connection or sees it fail
	once   sync.Once
}

// A script is what one side sends.
type script struct {
	payload []byte
	parts   []*part
	ends    string // clean, truncated or reset
	chunk   int    // the largest write or read
	seed    uint64
}

// A part is a section of a script that ends at byte to, or at the script's end.
type part struct {
	to     int
	end    bool
	read   chan struct{} // closed when the other side has read it
	await  *part         // of the other script: this part is written after that one was read
	hold   *part         // of the other script: this part is read after that one was read
	update keyUpdate     // sent before the part
}

type keyUpdate int

const (
	noUpdate keyUpdate = iota
	update
	updateRequested // of the other side too
)

// A menu bounds what a conversation may contain.
type menu struct {
	largest     int  // bytes that a side sends
	incomplete  bool // resets, and truncation of TLS streams
	truncatable [2]bool
}

// converse draws a conversation. It always terminates: the parts of both sides are in
// one order, and each waits only for earlier ones.
func converse(seed uint64, m menu) *conversation {
	rng := rand.New(rand.NewPCG(seed, 0))
	c := &conversation{broken: make(chan struct{})}
	for side := range c.sides {
		s := &c.sides[side]
		s.ends = clean
		s.seed = rng.Uint64()
		size := []int{0, rng.IntN(1000), rng.IntN(1 + m.largest/20), rng.IntN(1 + m.largest)}[rng.IntN(4)]
		s.payload = make([]byte, size)
		fill(s.payload, s.seed)
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
	if m.incomplete && rng.IntN(4) == 0 {
		side := rng.IntN(2)
		s := &c.sides[side]
		s.ends = reset
		if m.truncatable[side] && rng.IntN(2) == 0 {
			s.ends = truncated
		}
	}
	c.order(rng)
	return c
}

// order draws the order of all parts, and which part waits for which.
func (c *conversation) order(rng *rand.Rand) {
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
			p.await = last[1-side]
		}
		if holds && rng.IntN(2) == 0 {
			p.hold = last[1-side]
		}
		p.update = keyUpdate(rng.IntN(3))
		if holds {
			p.update = min(p.update, update)
		}
		last[side] = p
		if p.end && s.ends != clean {
			return // the other parts are never sent
		}
	}
}

// fill fills p with the bytes of a seed.
func fill(p []byte, seed uint64) {
	key := [32]byte{}
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	rand.NewChaCha8(key).Read(p)
}

// breaks releases every waiting side.
func (c *conversation) breaks() { c.once.Do(func() { close(c.broken) }) }

// wait waits until the other side has read p.
func (c *conversation) wait(p *part) {
	if p == nil {
		return
	}
	select {
	case <-p.read:
	case <-c.broken:
	}
}

// A sight is what one side received from the other.
type sight struct {
	got    int
	intact bool // the bytes are those that were sent
	how    string
}

// patience is how long a conversation may take on a busy machine.
const patience = 2 * time.Minute

// play plays one side and closes the connection.
func (c *conversation) play(side int, p *peer) sight {
	late := time.AfterFunc(patience, func() { p.raw.Conn.Close() })
	defer late.Stop()
	defer p.raw.Conn.Close()
	heard := make(chan sight, 1)
	go func() { heard <- c.listen(side, p) }()
	err := c.speak(side, p)
	if err != nil {
		c.breaks()
	}
	seen := <-heard
	if err != nil {
		// The kernel reports a reset once, here to the writer. The reader may have seen
		// what looks like the end of the stream.
		seen.how = p.how(err)
		return seen
	}
	// Closing with anything unread, such as the answer to a KeyUpdate, would
	// reset the connection and lose what is still on its way.
	p.raw.Conn.(interface{ CloseWrite() error }).CloseWrite()
	io.Copy(io.Discard, p.raw.Conn)
	return seen
}

// speak sends a side's script.
func (c *conversation) speak(side int, p *peer) error {
	s := &c.sides[side]
	rng := rand.New(rand.NewPCG(s.seed, 1))
	at := 0
	for _, part := range s.parts {
		c.wait(part.await)
		if r := p.raw.records.Load(); r != nil && part.update != noUpdate {
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
	case reset:
		p.reset()
		c.breaks()
	case truncated:
		p.raw.Conn.(*net.TCPConn).CloseWrite()
		c.breaks()
	default:
		return p.closeWrite()
	}
	return nil
}

// listen reads the other side's script and checks it.
func (c *conversation) listen(side int, p *peer) (seen sight) {
	seen.intact = true
	s := &c.sides[1-side]
	rng := rand.New(rand.NewPCG(s.seed, 2))
	buf := make([]byte, min(s.chunk, 1<<20))
	for _, part := range s.parts {
		c.wait(part.hold)
		for seen.got < part.to || part.end {
			window := buf[:1]
			if !part.end {
				window = buf[:min(part.to-seen.got, 1+rng.IntN(len(buf)))]
			}
			n, err := p.Read(window)
			if from := s.payload[seen.got:]; n > len(from) || string(window[:n]) != string(from[:n]) {
				seen.intact = false
				c.breaks()
				return seen
			}
			seen.got += n
			if err != nil {
				if seen.how = p.how(err); seen.how != clean || !part.end {
					c.breaks()
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

// check returns what is wrong with what a side received, or "".
func (c *conversation) check(side int, seen sight) string {
	if c.sides[side].ends != clean {
		return "" // a side that breaks the connection sees its own failure
	}
	s := &c.sides[1-side]
	switch {
	case !seen.intact:
		return fmt.Sprintf("got bytes that were not sent, after %d of %d", seen.got, len(s.payload))
	case s.ends == clean && (seen.how != clean || seen.got != len(s.payload)):
		return fmt.Sprintf("got %d bytes of %d and a %s end, want all and a clean one", seen.got, len(s.payload), seen.how)
	case s.ends == reset && seen.how != reset,
		s.ends == truncated && seen.how != reset && seen.how != truncated:
		return fmt.Sprintf("saw a %s end, though the other side's was a %s one", seen.how, s.ends)
	}
	return ""
}

// playBoth plays both sides.
func (c *conversation) playBoth(client, upstream *peer) (sights [2]sight) {
	var wg sync.WaitGroup
	for side, p := range []*peer{client, upstream} {
		wg.Go(func() { sights[side] = c.play(side, p) })
	}
	wg.Wait()
	return sights
}

// secretly makes config record its traffic secrets.
func secretly(config *tls.Config) *secrets {
	s := new(secrets)
	if config != nil {
		config.KeyLogWriter = s
	}
	return s
}
