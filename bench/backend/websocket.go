package backend

import (
	"net/http"

	"github.com/coder/websocket"
)

// WebSocketPath is where messages are echoed.
const WebSocketPath = "/websocket"

// echoMessages sends back every message until the client is gone.
func echoMessages(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // the client was told
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
