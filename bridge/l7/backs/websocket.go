package backs

import (
	"context"
	"encoding/base64"
	"errors"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// The counterpart of policy/websocket.go: the gateway asks an HTTP/2 upstream for a
// WebSocket with an extended CONNECT (RFC 8441), and converts the response to the one
// that HTTP/1.1 would have. Everything between the two files sees HTTP/1.1.

// findUpgrade is find for a request that asks for another protocol. It uses HTTP/1.1
// and a separate connection if the endpoint speaks HTTP/1.1, unless the endpoint has
// announced that it accepts the request over HTTP/2.
func (p *pool) findUpgrade(n *Need, given *BackInfo) (message.Back, error) {
	only := p.back.options.Protocol == HTTP2
	if only || message.IsWebSocket(n.Upgrade) && p.mayShare() && p.mayConnect() {
		stream, c, dial, allowed, err := p.shareConnecting(n)
		if err != nil {
			*given = BackInfo{Dial: dial}
			return nil, err
		}
		if stream != nil && (only || allowed) {
			*given = BackInfo{Protocol: "HTTP/2.0", Dial: dial, Carrier: c}
			return &connecting{shared: shared{stream, c}}, nil
		}
		if stream != nil {
			p.noteRefusal()
			stream.Done()
		}
	}
	if p.private {
		if c := p.take(true); c != nil { // the client may be logged in on an idle connection
			*given = BackInfo{Reused: true, Protocol: "HTTP/1.1", Dial: c.dialInfo}
			return c, nil
		}
	}
	c, dial, err := p.dial(n, true, nil)
	if err != nil {
		*given = BackInfo{Dial: dial}
		return nil, err
	}
	*given = BackInfo{Protocol: "HTTP/1.1", Dial: dial}
	return c, nil
}

// mayConnect reports whether the endpoint may accept WebSockets over HTTP/2, as far
// as the pool knows. A try with an endpoint that does not may waste a connection.
func (p *pool) mayConnect() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.sharedConns.noWebSocket
}

func (p *pool) noteRefusal() {
	p.mu.Lock()
	p.sharedConns.noWebSocket = true
	p.mu.Unlock()
}

// shareConnecting is share, and waits until it is known whether the stream may
// be a WebSocket.
func (p *pool) shareConnecting(n *Need) (stream *http2.ClientStream, c *conn2, m *accesslog.Dial, allowed bool, err error) {
	if stream, c, m, err = p.share(n); stream == nil {
		return nil, nil, m, false, err
	}
	ctx, done := n.Context()
	defer done()
	stop := context.AfterFunc(ctx, func() { stream.Abort(context.Cause(ctx)) })
	defer stop()
	return stream, c, m, stream.Connects(), nil
}

// A connecting is an HTTP/2 stream that becomes a WebSocket.
type connecting struct {
	shared
	accept string // the Sec-WebSocket-Accept of the response
}

// Send sends the request as an extended CONNECT. The stream stays open for the data of
// the WebSocket.
func (c *connecting) Send(r *message.Request, _ bool) error {
	if !message.IsWebSocket(r.Upgrade) {
		return message.ErrNoUpgrade
	}
	key, _ := r.Fields.Get("Sec-WebSocket-Key")
	nonce, err := base64.StdEncoding.Strict().DecodeString(key)
	if err != nil || len(nonce) != 16 || r.Fields.Count("Sec-WebSocket-Key") > 1 || r.Method != "GET" {
		return message.ErrBadHandshake
	}
	c.accept = message.WebSocketAccept(key)
	connect := *r // r is kept unchanged: another try may send it differently
	connect.Method, connect.Protocol, connect.Upgrade, connect.Length = "CONNECT", "websocket", "", -1
	connect.Fields = make(message.Fields, 0, len(r.Fields))
	for _, f := range r.Fields {
		if !message.EqualFold(f.Name, "Sec-WebSocket-Key") {
			connect.Fields = append(connect.Fields, f)
		}
	}
	if err := c.shared.Send(&connect, false); err != nil {
		if errors.Is(err, http2.ErrNoExtendedConnect) {
			return message.ErrNoWebSocket
		}
		return err
	}
	return c.Flush()
}

// Receive converts a successful response to the one that HTTP/1.1 would have.
func (c *connecting) Receive(into *message.Response) error {
	if err := c.shared.Receive(into); err != nil || into.Status < 200 || into.Status > 299 {
		return err
	}
	into.Status = 101
	into.Fields.Set("Upgrade", "websocket")
	into.Fields.Set("Sec-WebSocket-Accept", c.accept)
	return nil
}
