package wire

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// A Stream is a connection for an engine that reads it like any net.Conn and
// writes it in large pieces. With TLS each piece leaves with one system call.
//
// It reads the socket with calls that cannot block. Ordinary reads sometimes
// block long enough to keep the monitor thread of Go's scheduler running, which
// takes a tenth of all CPU.
type Stream struct {
	net.Conn
	sock  *socket.Socket
	tls   bool
	count *atomic.Uint64 // counts bytes as they arrive, before decryption; nil: not counted
}

// NewStream returns a Socket, or TLS on top of one, as a Stream.
func NewStream(nc net.Conn, pool *socket.Pool, count *atomic.Uint64) *Stream {
	sock := socket.Of(nc)
	_, secure := nc.(*tls.Conn)
	if secure {
		sock.Gather(pool)
	}
	sock.Stream(pool)
	socket.MeterOf(sock).Limit()
	return &Stream{Conn: nc, sock: sock, tls: secure, count: count}
}

func (s *Stream) Read(p []byte) (int, error) {
	for {
		n, err := s.Conn.Read(p)
		socket.MeterOf(s.sock).Data(n)
		if err != socket.ErrWouldBlock {
			return n, err
		}
		if err := s.sock.Fill(); err != nil {
			return 0, err
		}
		if s.count != nil {
			s.count.Add(uint64(len(s.sock.Taken())))
		}
	}
}

func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	if err == nil && s.tls {
		err = s.sock.Flush()
	}
	return n, err
}

// Delivered reports how the peer receives the written bytes, like the socket's
// Delivered.
func (s *Stream) Delivered() (progress uint64, waiting int) { return s.sock.Delivered() }

// closeTime bounds how long CloseWrite waits for a peer that does not read.
const closeTime = time.Second

// CloseWrite ends the stream toward the peer.
func (s *Stream) CloseWrite() error {
	if h, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		if err := h.CloseWrite(); err != nil {
			return err
		}
	}
	if s.tls {
		// crypto/tls has set a write deadline in the past, which would also fail the
		// close_notify that is yet to be flushed.
		_ = s.sock.SetWriteDeadline(time.Now().Add(closeTime)) // fails only on a closed socket, and then the flush fails too
	}
	return s.sock.CloseWrite()
}
