package http2

import (
	"bytes"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// held returns how much memory a queue holds.
func (q *queue) held() (n int) {
	for c := q.head; c != nil; c = c.next {
		n += len(c.buf)
	}
	return n
}

// The unread part of a body uses little more memory than its length, for any
// split into frames and any part of a frame that has arrived.
func TestAnUnreadBodyUsesLittleExtraMemory(t *testing.T) {
	body := firstWindow
	if alloctest.Race {
		body /= 8
	}
	for name, sizes := range map[string][]int{
		"1 byte":            {1},
		"100 bytes":         {100},
		"just over a chunk": {smallChunk + 1},
		"a chunk and more":  {smallChunk, 1},
		"half a frame":      {maxFrame/2 + 1},
		"a frame and more":  {maxFrame, 1},
		"all kinds":         {1, 5000, 3, 9000, 4096, 12000, 7},
	} {
		for _, role := range []string{"server", "client"} {
			t.Run(name+"/"+role, func(t *testing.T) {
				t.Parallel()
				mine, theirs := net.Pipe() // each write becomes one read
				_ = mine.SetDeadline(time.Now().Add(3 * testTimeout))
				hold := make(chan struct{})
				var c *conn
				ended := make(chan struct{})
				var stream *ClientStream
				go func() { // discard the replies
					fr := h2.NewFramer(nil, mine)
					if role == "client" {
						_, _ = mine.Read(make([]byte, len(h2.ClientPreface)))
					}
					for {
						if _, err := fr.ReadFrame(); err != nil {
							return
						}
					}
				}()
				if role == "server" {
					s := NewServerConn(theirs, nil, Options{})
					c = &s.conn
					go func() { defer close(ended); _ = s.Serve(func(*ServerStream) { <-hold }) }()
				} else {
					s := NewClientConn(theirs, Options{})
					c = &s.conn
					stream = s.Open()
					if err := stream.Send(get("/"), true); err != nil {
						t.Fatal(err)
					}
					go func() { defer close(ended); _ = s.Run() }()
				}
				defer func() {
					close(hold)
					c.Close()
					mine.Close()
					await(t, ended, "the connection to end")
				}()
				r := &raw{t: t}
				var out bytes.Buffer
				fr := h2.NewFramer(&out, nil)
				if role == "server" {
					out.WriteString(h2.ClientPreface)
				}
				r.must(fr.WriteSettings())
				head := literalBlock(":status", "200")
				if role == "server" {
					head = literalBlock(":method", "POST", ":scheme", "https", ":authority", "a.test", ":path", "/")
				}
				r.must(fr.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: head, EndHeaders: true}))
				_, err := mine.Write(out.Bytes())
				r.must(err)
				for sent, i := 0, 0; sent < body; i++ {
					n := min(sizes[i%len(sizes)], body-sent)
					out.Reset()
					r.must(fr.WriteData(1, false, bytes.Repeat([]byte{'x'}, n)))
					frame := out.Bytes()
					_, err = mine.Write(frame[:frameHeader]) // without the payload
					r.must(err)
					_, err = mine.Write(frame[frameHeader:])
					r.must(err)
					sent += n
				}
				held := 0
				eventually(t, "the body to arrive", func() bool {
					c.mu.Lock()
					defer c.mu.Unlock()
					s := c.streams[1]
					if s == nil || s.window > firstWindow-body {
						return false
					}
					arrived := 0
					for q := s.queue.head; q != nil; q = q.next {
						arrived += q.w
					}
					held = s.queue.held()
					return arrived == body
				})
				if held > 2*body+largeChunk {
					t.Errorf("%d bytes are held for %d", held, body)
				}
				if stream != nil {
					stream.Done()
				}
			})
		}
	}
}

// literalBlock returns a header block of literals that are not in any table.
func literalBlock(pairs ...string) (b []byte) {
	for i := 0; i < len(pairs); i += 2 {
		b = append(b, 0, byte(len(pairs[i])))
		b = append(b, pairs[i]...)
		b = append(b, byte(len(pairs[i+1])))
		b = append(b, pairs[i+1]...)
	}
	return b
}

// An idle connection uses no more memory after large heads than after small ones.
func TestAnIdleConnectionKeepsNoHead(t *testing.T) {
	const conns = 30
	each := func(size int) int {
		value := strings.Repeat("a", size)
		response := &message.Response{Status: 200, Fields: message.Fields{{Name: "x", Value: value}}}
		var before runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&before)
		var all []*ServerConn
		var clients []net.Conn
		for range conns {
			nc, s := serve(t, Options{}, func(s *ServerStream) { _ = s.Respond(response, true) })
			requestInPieces(t, nc, value)
			all, clients = append(all, s), append(clients, nc)
		}
		for _, s := range all {
			eventually(t, "the connection to be idle", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.idleLocked() && s.out.buf == nil && !s.in.holdsLarge.Load()
			})
		}
		var after runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(all)
		runtime.KeepAlive(clients)
		return (int(after.HeapInuse) - int(before.HeapInuse)) / conns
	}
	each(10) // fill the pools that all connections share
	small, large := each(10), each(50_000)
	if large > small+8<<10 {
		t.Errorf("%d bytes each after large heads, %d after small ones", large, small)
	}
}

// requestInPieces sends requests that have a field with value, and reads the responses.
func requestInPieces(t *testing.T, nc net.Conn, value string) {
	r := rawClient(t, nc)
	for id := uint32(1); id < 6; id += 2 {
		block := r.encode(with(simple, "x: "+value, "y: c")...)
		n := min(len(block), maxFrame)
		r.must(r.WriteHeaders(h2.HeadersFrameParam{StreamID: id, EndStream: true, BlockFragment: block[:n], EndHeaders: n == len(block)}))
		for block = block[n:]; len(block) > 0; block = block[n:] {
			n = min(len(block), maxFrame)
			r.must(r.WriteContinuation(id, n == len(block), block[:n]))
		}
		if got := r.outcome(id); !strings.HasPrefix(got, "200") {
			t.Fatal(got)
		}
	}
}
