package starttls

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout bounds waits that must not take long, even on a busy machine.
const testTimeout = time.Minute

// serve runs a server for one connection and returns the client's end. The
// server's end is closed when handle returns and the test has ended.
func serve(t *testing.T, handle func(net.Conn)) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = server.SetDeadline(time.Now().Add(testTimeout))
	done := make(chan struct{})
	go func() {
		defer close(done)
		handle(server)
	}()
	t.Cleanup(func() {
		client.Close()
		<-done
		server.Close()
	})
	return client
}

// outcome is the result of a dialect: the reason and text of its error.
type outcome struct {
	done   bool
	reason certs.Reason
	text   string
	sent   string
}

// play feeds a peer's messages to a dialect, one element at a time, each after
// the dialect has consumed the previous one.
func play(d dialect, said ...string) (o outcome) {
	o.sent = string(d.start())
	for _, s := range said {
		if s == "" {
			continue
		}
		out, done, err := d.feed([]byte(s))
		o.sent += string(out)
		if done || err != nil {
			o.done, o.reason = done, certs.Classify(err)
			if err != nil {
				o.text = err.Error()
			}
			return o
		}
	}
	return o
}

// splits returns s cut in two at every position.
func splits(s string) (all [][]string) {
	for i := 1; i < len(s); i++ {
		all = append(all, []string{s[:i], s[i:]})
	}
	return all
}

// fuzzDialect checks that a dialect accepts any bytes, in pieces of any size,
// without a panic, and that its errors are typed and bounded.
func fuzzDialect(f *testing.F, make func() dialect, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, said []byte, size uint8) {
		d := make()
		d.start()
		sent := 0
		for len(said) > 0 {
			n := len(said)
			if size > 0 {
				n = min(n, int(size))
			}
			out, done, err := d.feed(said[:n])
			said, sent = said[n:], sent+len(out)
			if sent > 16<<10 {
				t.Fatalf("sent %d bytes", sent)
			}
			if done && err != nil {
				t.Fatalf("done, and %v", err)
			}
			if err != nil {
				if r := certs.Classify(err); r != certs.ReasonSTARTTLSRefused && r != certs.ReasonSTARTTLSInjection && r != certs.ReasonPeerClosed {
					t.Fatalf("the reason of %v is %v", err, r)
				}
				if text := err.Error(); len(text) > 2000 || strings.ContainsAny(text, "\r\n\x1b\x00") {
					t.Fatalf("the error is not printable: %q", text)
				}
			}
			if done || err != nil {
				return
			}
		}
		if d.waiting() == "" {
			t.Fatal("waits for nothing")
		}
	})
}

// holdSize is the size of hold's reads.
const holdSize = 513

// hold reads until the peer closes.
func hold(conn net.Conn) {
	for buf := make([]byte, holdSize); ; {
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}

// soon returns a context that ends almost at once.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
