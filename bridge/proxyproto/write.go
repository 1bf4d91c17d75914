package proxyproto

import (
	"net"

	pires "github.com/pires/go-proxyproto"
)

// A Version is a version of the protocol. The zero Version disables it.
type Version byte

// The supported versions.
const (
	None Version = iota
	V1           // a line of text
	V2           // binary
)

// Header returns the header that announces a connection from source to
// destination. Unless both are TCP addresses, the header says that the client
// is unknown (version 1) or that the sender connects for itself (version 2).
// Both have the same effect. The zero Version has no header.
func (v Version) Header(source, destination net.Addr) []byte {
	if v == None {
		return nil
	}
	h := &pires.Header{Version: byte(v), Command: pires.LOCAL, TransportProtocol: pires.UNSPEC}
	if isTCP(source) && isTCP(destination) {
		h = pires.HeaderProxyFromAddrs(byte(v), source, destination)
	}
	b, err := h.Format()
	if err != nil {
		// The addresses have values that no socket has, such as ports beyond 65535.
		h = &pires.Header{Version: byte(v), Command: pires.LOCAL, TransportProtocol: pires.UNSPEC}
		b, _ = h.Format()
	}
	return b
}

func isTCP(a net.Addr) bool {
	_, ok := a.(*net.TCPAddr)
	return ok
}
