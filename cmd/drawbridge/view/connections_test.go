package view

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestConnectionTable(t *testing.T) {
	n := func(n int64) *int64 { return &n }
	all := []*adminv1.Connection{
		{
			Id: "a1", Protocol: adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_HTTP_2, State: adminv1.ConnectionPhase_CONNECTION_PHASE_ACTIVE, Draining: true,
			Listener: "web", Route: "api", Upstream: "site", Endpoint: "site.internal:443", RequestsInFlight: 2, Revision: 7,
			Age: durationpb.New(90*time.Second + time.Millisecond), IdleDuration: durationpb.New(time.Millisecond),
			Client: &adminv1.ConnectionSide{RemoteAddress: "10.0.0.1:1", AnnouncedAddress: "192.0.2.7:9", BytesReceived: n(1536), BytesSent: n(5 << 20), Tls: &adminv1.ConnectionTls{
				Version: adminv1.TlsVersion_TLS_VERSION_1_3, Peer: &adminv1.ConnectionIdentity{Subject: "CN=a", SubjectAltNames: []string{"URI:spiffe://corp/a", "DNS:a"}}}},
		},
		{
			Id: "a2", Protocol: adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_TUNNEL, State: adminv1.ConnectionPhase_CONNECTION_PHASE_ACTIVE, Upgrade: "websocket", Listener: "plain",
			Client: &adminv1.ConnectionSide{RemoteAddress: "unix:"}, Server: &adminv1.ConnectionSide{Tls: &adminv1.ConnectionTls{Version: adminv1.TlsVersion_TLS_VERSION_1_2}},
		},
	}
	var out bytes.Buffer
	if err := ConnectionTable(all).Write(&out, false); err != nil {
		t.Fatal(err)
	}
	const want = `ID   LISTENER   CLIENT        IDENTITY          PROTOCOL    STATE                           ROUTE   UPSTREAM   ENDPOINT            TLS          RECEIVED   SENT      AGE     IDLE   REVISION
a1   web        192.0.2.7:9   spiffe://corp/a   HTTP/2      active (2 requests), draining   api     site       site.internal:443   1.3          1.5 KiB    5.0 MiB   1m30s   0s     7
a2   plain      unix:         -                 websocket   active                          -       -          -                   none / 1.2   -          -         -       -      -
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
