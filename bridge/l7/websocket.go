package l7

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// HTTP/2 has no Upgrade: a WebSocket is asked for with an extended CONNECT (RFC
// 8441). For all that decides about a request it is the GET that HTTP/1.1 would
// have, and that is what upstreams are sent.

// upgradeOfConnect makes an extended CONNECT the request of HTTP/1.1 that means
// the same. It reports false if it is for a protocol that there is none for.
func (x *exchange) upgradeOfConnect(r *message.Request) bool {
	if !isWebSocket(r.Protocol) {
		return false
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	x.key = base64.StdEncoding.EncodeToString(nonce[:])
	r.Method, r.Protocol, r.Upgrade, r.Length = "GET", "", "websocket", 0
	r.Fields.Set("Sec-WebSocket-Key", x.key) // a client of HTTP/2 sends none
	return true
}

// acceptOfUpgrade makes the response to such an upgrade the one that HTTP/2
// has. It reports false if the upstream did not mean it (RFC 6455, section 4.1).
func (x *exchange) acceptOfUpgrade(r *message.Response) bool {
	accept, _ := r.Fields.Get("Sec-WebSocket-Accept")
	if accept != acceptOf(x.key) {
		return false
	}
	r.Fields.Remove("Sec-WebSocket-Accept")
	r.Status, r.Upgrade, r.Length = 200, "", -1
	return true
}

// acceptOf returns the Sec-WebSocket-Accept that answers a key (RFC 6455, section
// 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
