package message

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
)

// Errors of upgrades that the upstream's HTTP version cannot carry.
var (
	// ErrNoUpgrade rejects an upgrade that HTTP/2 cannot express.
	ErrNoUpgrade = errors.New("the upstream speaks HTTP/2, where a connection can switch only to WebSocket")

	// ErrNoWebSocket rejects a WebSocket that the upstream does not allow.
	ErrNoWebSocket = errors.New("the upstream speaks HTTP/2, and its settings allow no WebSocket (RFC 8441)")

	// ErrBadHandshake rejects an invalid request for a WebSocket (RFC 6455,
	// section 4.2.1). With HTTP/1.1 the upstream checks it.
	ErrBadHandshake = errors.New("a WebSocket needs GET and one Sec-WebSocket-Key of 16 bytes")
)

// IsWebSocket reports whether an Upgrade or a :protocol names WebSocket.
func IsWebSocket(protocol string) bool { return EqualFold(protocol, "websocket") }

// WebSocketAccept returns the Sec-WebSocket-Accept value for a key (RFC 6455,
// section 4.2.2).
func WebSocketAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
