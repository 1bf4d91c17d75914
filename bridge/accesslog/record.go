package accesslog

import (
	"cmp"
	"crypto/tls"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Kind is the subject of a Record.
type Kind uint8

const (
	Request    Kind = iota // an HTTP request
	Connection             // a connection of a TCP listener
)

func (k Kind) String() string {
	if k == Connection {
		return "connection"
	}
	return "request"
}

// A Record describes one finished request or connection. Zero fields do not
// apply or are unknown, and are omitted.
type Record struct {
	Kind     Kind
	Start    time.Time // when it began
	Duration time.Duration

	Listener string

	// Client is the address of the client, from the PROXY protocol or a trusted
	// proxy if they announced one; "" is a client of a unix-domain socket. Peer is
	// the other end of the connection, as address and port, if that differs.
	Client     string
	ClientPort uint16
	Peer       string

	RequestID, TraceID string

	// Fields of a request. Host and path are the matched ones; the query is not
	// recorded, because it often holds secrets.
	Method, Host, Path string
	Protocol           string // "HTTP/1.1"
	Upgrade            string // the protocol it was upgraded to
	UserAgent          string
	Code               int // status code of the response; 499: the client left before it began
	GRPC               bool
	GRPCStatus         int // valid if GRPC is set

	// Ended states how the connection, or an upgraded one, ended, or why a
	// response is incomplete. Reason is the failure of the upstream, in the words
	// of the API's enum.
	Ended, Reason string

	Route, Upstream, Endpoint string
	UpstreamProtocol          string // the protocol of a forwarded request
	Attempts                  int    // attempts to send or connect
	Reused                    bool   // the connection to the endpoint existed before

	// Bytes of the bodies, or of the connection, without TLS overhead.
	FromClient, ToClient uint64

	// Duration of each phase.
	Handshake         time.Duration // the client's handshake, the same for all requests of a connection
	Queued            time.Duration // wait for room at an endpoint
	Connect           time.Duration // connecting to endpoints, total of all attempts
	UpstreamHandshake time.Duration // total of all attempts
	UpstreamHead      time.Duration // for a request: from having a connection to the response's head
	FirstByte         time.Duration // for a connection: from its start to the upstream's first byte

	ServerName       string         // the client's SNI
	TLS, UpstreamTLS *TLS           // nil: plaintext, or TLS that passed through
	Certificate      certs.Identity // the client's identity; zero: it presented no certificate
}

// SetClient sets the client of the Record and the address of its peer.
func (r *Record) SetClient(client, remote net.Addr) {
	a, ok := client.(*net.TCPAddr)
	if !ok {
		return
	}
	r.Client, r.ClientPort = a.AddrPort().Addr().Unmap().String(), uint16(a.Port)
	if p, ok := remote.(*net.TCPAddr); !ok || p.Port != a.Port || !p.IP.Equal(a.IP) {
		r.Peer = cmp.Or(remote.String(), noAddress)
	}
}

// TLS is the result of a handshake. It is immutable: the records of all
// requests of a connection share it.
type TLS struct {
	Version, Suite string
	Group          string // "" if TLS 1.2 used no group
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
