package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/drawbridge-gateway/drawbridge/bench/backend"
)

// WebSocket is Echo over WebSocket.
func WebSocket(conns, size int) Func {
	return func(ctx context.Context, target Target, m *Meter) {
		scheme := "ws"
		if target.TLS != nil {
			scheme = "wss"
		}
		transport := &http.Transport{TLSClientConfig: target.TLS}
		defer transport.CloseIdleConnections()
		slots := make(chan struct{}, 32) // as in Echo
		each(ctx, m, conns, func(i int) error {
			slots <- struct{}{}
			c, _, err := websocket.Dial(ctx, scheme+"://"+target.Address+backend.WebSocketPath, &websocket.DialOptions{
				HTTPClient: &http.Client{Transport: transport}, CompressionMode: websocket.CompressionDisabled,
			})
			<-slots
			if err != nil {
				return err
			}
			defer func() { _ = c.CloseNow() }()
			r := m.recorder()
			msg := newMessage(i, size)
			for first := true; ; first = false {
				msg.number++
				binary.BigEndian.PutUint64(msg.sent, msg.number)
				start := time.Now()
				if err := c.Write(ctx, websocket.MessageBinary, msg.sent); err != nil {
					return err
				}
				_, got, err := c.Read(ctx)
				if err != nil {
					return err
				}
				r.record(time.Since(start))
				if !bytes.Equal(got, msg.sent) {
					return errMismatch
				}
				m.add(1)
				if first {
					m.workerReady()
				}
			}
		})
	}
}
