package accesslog

import (
	"cmp"
	"crypto/tls"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Kind is what a Record is about.
type Kind uint8

const (
	Request    Kind = iota // of HTTP
	Connection             // of a TCP listener
)

func (k Kind) String() string {
	if k == Connection {
		return "connection"
	}
	return "request"
}

// A Record is what there is to say of one request or connection that is over.
// What is zero does not apply, or is not known, and is left out.
type Record struct {
	Kind     Kind
	Start    time.Time // when it began
	Duration time.Duration

	Listener string

	// Client is the address of the client, as the PROXY protocol or a trusted
	// proxy may have told it; "" is one of a unix-domain socket, which has none.
	// Peer is who is at the other end of the connection, as address and port, if
	// that is somebody else.
	Client     string
	ClientPort uint16
	Peer       string

	RequestID, TraceID string

	// Of a request. Host and path are as they were matched; what follows the path
	// is not recorded, for queries often hold secrets.
	Method, Host, Path string
	Protocol           string // "HTTP/1.1"
	Upgrade            string // what it was upgraded to
	UserAgent          string
	Code               int // of the response, or 499: the client left before it began
	GRPC               bool
	GRPCStatus         int // if GRPC is set

	// Ended says how the connection, or an upgraded one, ended, or of a response
	// that is not whole why. Reason is a word of the API's enum: what went wrong
	// upstream.
	Ended, Reason string

	Route, Upstream, Endpoint string
	UpstreamProtocol          string // of a request
	Attempts                  int    // how often it was tried to be sent, or to be connected
	Reused                    bool   // the connection to the endpoint was there before

	// Bytes of the bodies, or of the connection; without TLS.
	FromClient, ToClient uint64

	// How long the phases took.
	Handshake         time.Duration // the client's, once for all requests of a connection
	Queued            time.Duration // until an endpoint had room
	Connect           time.Duration // to endpoints, all attempts together
	UpstreamHandshake time.Duration // likewise
	UpstreamHead      time.Duration // of a request: from when there was a connection to the response's head
	FirstByte         time.Duration // of a connection: from its beginning to the upstream's first byte

	ServerName       string         // that the client asked for by SNI
	TLS, UpstreamTLS *TLS           // nil: plaintext, or TLS that passed through
	Certificate      certs.Identity // of the client; zero: it presented none
}

// Of notes whose the record is: client's, over a connection from remote.
func (r *Record) Of(client, remote net.Addr) {
	a, ok := client.(*net.TCPAddr)
	if !ok {
		return
	}
	r.Client, r.ClientPort = a.AddrPort().Addr().Unmap().String(), uint16(a.Port)
	if p, ok := remote.(*net.TCPAddr); !ok || p.Port != a.Port || !p.IP.Equal(a.IP) {
		r.Peer = cmp.Or(remote.String(), noAddress)
	}
}

// TLS is what a handshake came to. It is immutable: the records of all requests
// of a connection share it.
type TLS struct {
	Version, Suite string
	Group          string // "" where TLS 1.2 exchanged no keys by one
	Resumed        bool
}

// Describe describes a connection whose handshake is complete.
func Describe(state *tls.ConnectionState) *TLS {
	t := &TLS{
		Version: tls.VersionName(state.Version),
		Suite:   tls.CipherSuiteName(state.CipherSuite),
		Resumed: state.DidResume,
	}
	if state.CurveID != 0 {
		t.Group = state.CurveID.String()
	}
	return t
}
