package socket

import (
	"syscall"
	"time"
)

// Traffic holds the kernel's counts for a connection, including TLS and PROXY protocol
// headers. The gateway itself counts no bytes for it.
type Traffic struct {
	Received, Sent uint64        // bytes, each counted once
	Idle           time.Duration // time since the last byte in either direction
}

// TrafficOf returns the traffic of a connection. ok is false if the connection has ended,
// or if the system does not count: for unix-domain sockets, and on systems other than
// Linux.
func TrafficOf(s *Socket) (t Traffic, ok bool) {
	s.mu.Lock()
	carrier := s.carrier
	s.mu.Unlock()
	if carrier != nil {
		return carrier.Traffic()
	}
	c, isConn := s.Conn.(syscall.Conn)
	if !isConn {
		return Traffic{}, false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return Traffic{}, false
	}
	if err := raw.Control(func(fd uintptr) { t, ok = DescriptorTraffic(int(fd)) }); err != nil {
		return Traffic{}, false
	}
	return t, ok
}

// IsHandedOver reports whether a Carrier moves the bytes of s.
func IsHandedOver(s *Socket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.carrier != nil
}
