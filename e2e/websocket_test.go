// WebSockets work through HTTP listeners, plaintext and TLS, to an upstream
// over mutual TLS: with messages in both directions, a subprotocol and a
// closing code.

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestWebSocket(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	backend := serveHTTPS(t, a.serverConfig(t), echoWebSocket)

	g := startGateway(t)
	secure := listener("secure", protocolHTTP, "web")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server),
		upstream("web", a.settings(), backend),
		listener("plain", protocolHTTP, "web"), secure,
	)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(a.ca), ServerName: serverName}}}
	t.Cleanup(client.CloseIdleConnections)

	for _, url := range []string{"ws://" + g.address("plain") + "/chat", "wss://" + g.address("secure") + "/chat"} {
		// The library waits only five seconds for the other side's close.
		err := context.DeadlineExceeded
		for range 5 {
			if !errors.Is(err, context.DeadlineExceeded) {
				break
			}
			err = useWebSocket(t, client, url)
		}
		if err != nil {
			t.Errorf("%s: closing: %v", url, err)
		}
	}
	// The same listener serves plain requests.
	if code, _ := get(t, "http://"+g.address("plain")+"/chat"); code != http.StatusUpgradeRequired {
		t.Errorf("a plain request is answered with %d", code)
	}
}

// useWebSocket sends messages of all sizes, and returns the error of the close.
func useWebSocket(t *testing.T, client *http.Client, url string) error {
	t.Helper()
	ws, resp, err := websocket.Dial(longContext(t), url, &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{"echo"}})
	if err != nil {
		t.Fatalf("%s: %v (%v)", url, err, resp)
	}
	defer func() { _ = ws.CloseNow() }()
	if ws.Subprotocol() != "echo" {
		t.Errorf("%s: the subprotocol is %q", url, ws.Subprotocol())
	}
	for i := range 100 {
		text := strings.Repeat(fmt.Sprint(i, " "), 1+20*i)
		if err := webSocketPingPong(t, ws, text); err != nil {
			t.Fatalf("%s: message %d: %v", url, i, err)
		}
	}
	return ws.Close(4321, "enough")
}

// echoWebSocket sends each message back until the client closes.
func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}})
	if err != nil {
		return // Accept has already answered
	}
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(-1)
	for {
		kind, message, err := ws.Read(r.Context())
		if err != nil {
			return
		}
		if err := ws.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

func webSocketPingPong(t testing.TB, ws *websocket.Conn, text string) error {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	if err := ws.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		return err
	}
	kind, got, err := ws.Read(ctx)
	if err != nil {
		return err
	}
	if kind != websocket.MessageText || string(got) != text {
		return fmt.Errorf("sent %d bytes, got back %v of %d", len(text), kind, len(got))
	}
	return nil
}
