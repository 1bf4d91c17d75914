package l7

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
)

// The bodies that a connection of HTTP/2 keeps for retries fill its windows, so that all of
// them together hold no more than the windows, however many bytes a policy allows.
func TestKeptBodiesFillTheWindow(t *testing.T) {
	t.Parallel()
	w := newTestbed(t)
	end := make(chan struct{})
	u := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-end
	})
	action := to(w.back(backs.HTTP2, w.server(u, "h2")))
	action.Forward.Retry = &exchange.Retry{Codes: []int{503}, MaxBody: 1 << 20}
	s, address := w.gateway(fixed(&Table{Default: action, TLS: w.listenerTLS("h2")}))
	defer close(end)
	client, answers := w.browser(), make(chan string, 60)
	var bodies []*meteredBody
	const small, large = 40 << 10, 400 << 10
	total := int64(0)
	for i := range cap(answers) {
		size := small
		if i%2 == 0 {
			size = large
		}
		total += int64(size)
		body := &meteredBody{r: bytes.NewReader(make([]byte, size))}
		bodies = append(bodies, body)
		request, err := http.NewRequest("POST", "https://"+address, body)
		if err != nil {
			t.Fatal(err)
		}
		go func() { answers <- answer(client.Do(request)) }()
	}
	eventually(t, "all bodies are sent", func() bool {
		sent := int64(0)
		for _, b := range bodies {
			sent += b.n.Load()
		}
		return sent == total
	})
	// The large bodies exceed the windows, so they are kept only at first.
	eventually(t, "the small bodies are kept", func() bool { return s.shared.Kept() >= int64(cap(answers)/2*small) })
	const windows, growth = 64 << 10, 4 << 20 // a stream's first window, and the growth of all windows
	if kept, most := s.shared.Kept(), int64(cap(answers)*windows+growth); kept > most {
		t.Errorf("%d bytes are kept, want at most %d", kept, most)
	}
}
