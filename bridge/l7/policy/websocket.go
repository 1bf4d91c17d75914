package policy

import (
	"crypto/rand"
	"encoding/base64"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// HTTP/2 has no Upgrade: a client asks for a WebSocket with an extended CONNECT
// (RFC 8441). The gateway routes it as the GET that HTTP/1.1 would use, and
// sends that to upstreams.

// ConnectToUpgrade turns an extended CONNECT into the equivalent HTTP/1.1
// request, and returns the WebSocket key that it chose. It reports false if
// HTTP/1.1 has no upgrade to the protocol.
func ConnectToUpgrade(r *message.Request) (key string, ok bool) {
	if !message.IsWebSocket(r.Protocol) {
		return "", false
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key = base64.StdEncoding.EncodeToString(nonce[:])
	r.Method, r.Protocol, r.Upgrade, r.Length = "GET", "", "websocket", 0
	r.Fields.Set("Sec-WebSocket-Key", key) // HTTP/2 clients send no key
	return key, true
}

// UpgradeToConnect turns the response to such an upgrade into the equivalent
// HTTP/2 response. It reports false if the upstream did not prove that it
// accepted the upgrade (RFC 6455, section 4.1).
func UpgradeToConnect(r *message.Response, key string) bool {
	accept, _ := r.Fields.Get("Sec-WebSocket-Accept")
	if accept != message.WebSocketAccept(key) {
		return false
	}
	r.Fields.Remove("Sec-WebSocket-Accept")
	r.Status, r.Upgrade, r.Length = 200, "", -1
	return true
}

// AcceptUpgrade reports whether a response switches to the protocol that the
// request asked for, and sets the response's Upgrade to it.
func AcceptUpgrade(r *message.Response, asked *message.Request) bool {
	given, ok := r.Fields.Get("Upgrade")
	if !ok || asked.Upgrade == "" || r.Fields.Count("Upgrade") > 1 || !message.EqualFold(given, asked.Upgrade) {
		return false
	}
	r.Upgrade = given
	return true
}

// RequiredUpgrade returns the protocols that a 426 asks the client to switch to
// (RFC 9110, section 15.5.22), for an Upgrade field of our own. HTTP/2 is left
// out: a gateway cannot switch to it.
func RequiredUpgrade(r *message.Response) string {
	if r.Status != 426 {
		return ""
	}
	var kept []string
	for e := range r.Fields.Elements("Upgrade") {
		name, version, versioned := strings.Cut(e, "/")
		if message.IsToken(name) && (!versioned || message.IsToken(version)) && !message.EqualFold(name, "h2c") && !message.EqualFold(name, "h2") {
			kept = append(kept, e)
		}
	}
	return strings.Join(kept, ", ")
}
