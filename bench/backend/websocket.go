package backend

import (
	"net/http"

	"github.com/coder/websocket"
)

// WebSocketPath is the path that echoes messages.
const WebSocketPath = "/websocket"

// echoMessages echoes every message until the client disconnects.
func echoMessages(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // Upgrade has answered the client
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if c.Write(r.Context(), kind, data) != nil {
			return
		}
	}
}
