package view

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// ConnectionTable returns the open connections.
func ConnectionTable(all []*adminv1.Connection) *terminal.Table {
	t := &terminal.Table{Header: []string{"ID", "LISTENER", "CLIENT", "IDENTITY", "PROTOCOL", "STATE", "ROUTE", "UPSTREAM", "ENDPOINT", "TLS", "RECEIVED", "SENT", "AGE", "IDLE", "REVISION"}}
	for _, c := range all {
		side := cmp.Or(c.GetClient(), c.GetServer())
		revision := ""
		if c.GetRevision() > 0 {
			revision = strconv.FormatInt(c.GetRevision(), 10)
		}
		t.Add(c.GetId(), c.GetListener(), ClientOf(c), IdentityOf(c), connectionProtocol(c), connectionState(c), c.GetRoute(), c.GetUpstream(), c.GetEndpoint(),
			connectionTLS(c), bytesText(side.BytesReceived), bytesText(side.BytesSent), rounded(c.GetAge()), rounded(c.GetIdleDuration()), revision)
	}
	return t
}

// ClientOf returns the client's address, or "" if the connection does not belong to a
// single client.
func ClientOf(c *adminv1.Connection) string {
	return cmp.Or(c.GetClient().GetAnnouncedAddress(), c.GetClient().GetRemoteAddress())
}

// IdentityOf returns the first name in the client's certificate, or its subject.
func IdentityOf(c *adminv1.Connection) string {
	peer := c.GetClient().GetTls().GetPeer()
	if names := peer.GetSubjectAltNames(); len(names) > 0 {
		return strings.TrimPrefix(names[0], "URI:")
	}
	return peer.GetSubject()
}

func connectionProtocol(c *adminv1.Connection) string {
	if c.GetUpgrade() != "" {
		return c.GetUpgrade()
	}
	return map[adminv1.ConnectionProtocol]string{
		adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_TCP:    "TCP",
		adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_HTTP_1: "HTTP/1",
		adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_HTTP_2: "HTTP/2",
		adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_TUNNEL: "tunnel",
	}[c.GetProtocol()]
}

func connectionState(c *adminv1.Connection) string {
	state := format.Lower(c.GetState())
	if n := c.GetRequestsInFlight(); n > 0 {
		state += " (" + terminal.Count(int(n), "request") + ")"
	}
	if c.GetDraining() {
		state += ", draining"
	}
	return state
}

// connectionTLS returns the TLS versions of both sides: "1.3 - 1.2".
func connectionTLS(c *adminv1.Connection) string {
	var sides []string
	for _, s := range []*adminv1.ConnectionSide{c.GetClient(), c.GetServer()} {
		switch {
		case s == nil:
		case s.GetTls() == nil:
			sides = append(sides, "none")
		default:
			sides = append(sides, strings.ReplaceAll(format.Word(s.GetTls().GetVersion()), "_", "."))
		}
	}
	return strings.Join(sides, " / ")
}

func bytesText(n *int64) string {
	if n == nil {
		return ""
	}
	return terminal.Bytes(*n)
}

// rounded returns a duration in whole seconds, or "" for nil.
func rounded(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return d.AsDuration().Truncate(time.Second).String()
}
