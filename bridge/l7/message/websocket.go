package message

import (
	"crypto/sha1"
	"encoding/base64"
)

// IsWebSocket reports whether an Upgrade or a :protocol names WebSocket.
func IsWebSocket(protocol string) bool { return EqualFold(protocol, "websocket") }

// WebSocketAccept returns the Sec-WebSocket-Accept that answers a key (RFC 6455,
// section 4.2.2).
func WebSocketAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
