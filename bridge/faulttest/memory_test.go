package faulttest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A connection in memory ends in the same ways as a TCP connection.
func TestEndsOfAConnectionInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := func() (client, server net.Conn) {
			ln := Listen()
			defer ln.Close()
			go func() { server, _ = ln.Accept() }()
			client, err := ln.Dial(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			t.Cleanup(func() { client.Close(); server.Close() })
			return client, server
		}
		wantRead := func(c net.Conn, want string, end error) {
			t.Helper()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, end) {
				t.Errorf("the stream ends with %v, want %v", err, end)
			}
		}

		client, server := open()
		io.WriteString(client, "hello")
		client.(*memoryConn).CloseWrite()
		wantRead(server, "hello", io.EOF)
		io.WriteString(server, "bye")
		server.Close()
		wantRead(client, "bye", io.EOF)
		if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("after CloseWrite: %v", err)
		}

		client, server = open()
		io.WriteString(client, "unread")
		io.WriteString(server, "hello")
		server.Close()
		wantRead(client, "hello", syscall.ECONNRESET)

		client, server = open()
		server.(*memoryConn).SetLinger(0)
		server.Close()
		wantRead(client, "", syscall.ECONNRESET)

		client, server = open()
		server.Close()
		wantRead(client, "", io.EOF)
		if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("writing to a closed connection: %v", err)
		}

		client, _ = open()
		client.SetDeadline(time.Now().Add(time.Second))
		wantRead(client, "", os.ErrDeadlineExceeded)
		client.SetDeadline(time.Now().Add(time.Second))
		if n, err := client.Write(make([]byte, 2*inFlight)); n != inFlight || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a write that waits: %d, %v", n, err)
		}
	})
}

// Exactly one operation gets the fault.
func TestTheFaultHappensOnce(t *testing.T) {
	for _, kind := range Kinds {
		synctest.Test(t, func(t *testing.T) {
			client, server := Pair()
			c := Wrap(client, Fault{Kind: kind, At: 1})
			defer server.Close()
			c.SetDeadline(time.Now().Add(time.Second))
			begin := time.Now()
			if _, err := c.Write([]byte("1234")); err != nil {
				t.Error(err)
			}
			n, err := c.Write([]byte("5678"))
			want := map[Kind]int{Cut: 2}[kind]
			if n != want || err == nil || (time.Since(begin) > 0) != (kind == Stall) {
				t.Errorf("%v: %d, %v", kind, n, err)
			}
			if c.Closed() || c.Ops() != 2 {
				t.Errorf("closed: %v, %d operations", c.Closed(), c.Ops())
			}
			if c.Close(); !c.Closed() {
				t.Error("not closed")
			}
		})
	}
}
