package l7

import (
	"bytes"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

// An HTTP/2 response with a Content-Length of 0 is complete when its stream ends, not
// when its head arrives: a trailer or a reset may follow.
func TestEmptyHTTP2ResponsesEndWithTheirStream(t *testing.T) {
	schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
		table.Default = to(w.back(backs.HTTP2, w.raw(w.serverTLS("h2"), serveEmpty)))
		_, address := w.gateway(fixed(table))
		for path, want := range map[string]string{"/trailer": "42", "/end": "", "/reset": "broken"} {
			res, err := w.browser().Get(scheme + "://" + address + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			got := res.Trailer.Get("Sum")
			if err != nil || res.StatusCode == 502 { // the reset may arrive with the head
				got = "broken"
			}
			if got != want {
				t.Errorf("%s: %d %q, %q, want %q", path, res.StatusCode, body, got, want)
			}
		}
	})
}

// serveEmpty serves an HTTP/2 connection: it sends heads that announce an empty body,
// and ends each stream as the path says.
func serveEmpty(c net.Conn) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(c, c)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = fr.WriteSettings()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	headers := func(id uint32, end bool, fields ...hpack.HeaderField) {
		block.Reset()
		for _, f := range fields {
			_ = encoder.WriteField(f)
		}
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
	}
	for {
		frame, err := fr.ReadFrame()
		if err != nil {
			return
		}
		request, ok := frame.(*http2.MetaHeadersFrame)
		if !ok {
			continue
		}
		id := request.StreamID
		headers(id, false, hpack.HeaderField{Name: ":status", Value: "200"}, hpack.HeaderField{Name: "content-length", Value: "0"})
		switch request.PseudoValue("path") {
		case "/trailer":
			headers(id, true, hpack.HeaderField{Name: "sum", Value: "42"})
		case "/end":
			_ = fr.WriteData(id, true, nil)
		default:
			_ = fr.WriteRSTStream(id, http2.ErrCodeInternal)
		}
	}
}
