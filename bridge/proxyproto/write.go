package proxyproto

import (
	"net"

	pires "github.com/pires/go-proxyproto"
)

// A Version is one of the protocol. The zero Version means that none is spoken.
type Version byte

// The versions that there are.
const (
	None Version = iota
	V1           // a line of text
	V2           // binary
)

// Header returns the header that announces a connection from source to
// destination. Where they are not both TCP addresses it says that nothing is
// known of the client (version 1), or that the sender speaks for itself
// (version 2), which come to the same. None has no header.
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
		// Ports beyond 65535 and the like, which no socket has.
		h = &pires.Header{Version: byte(v), Command: pires.LOCAL, TransportProtocol: pires.UNSPEC}
		b, _ = h.Format()
	}
	return b
}

func isTCP(a net.Addr) bool {
	_, ok := a.(*net.TCPAddr)
	return ok
}
