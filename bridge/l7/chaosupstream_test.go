package l7

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// ServeHTTP serves upstreams that never refuse a request.
func (c *chaos) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("Id")
	c.process(id)
	if rand.IntN(20) == 0 {
		breakOff(w)
	}
	early := rand.IntN(10) == 0
	if !early {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		c.received(id, body)
	}
	if rand.IntN(10) == 0 {
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	name, body, a := c.answer(id)
	if h, ok := w.(http.Hijacker); ok && !early && r.ProtoMajor == 1 && rand.IntN(5) == 0 {
		c.mu.Lock()
		a.trailer = false
		c.mu.Unlock()
		c.untilClose(h, name, body, a.broken)
		return
	}
	w.Header().Set("Answer", name)
	w.Header().Set("Content-Type", "application/octet-stream")
	switch {
	case a.trailer:
		w.Header().Set("Trailer", "Sum")
		w.WriteHeader(http.StatusOK)
	case rand.IntN(2) == 0 && len(body) > 0:
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	sent := len(body)
	switch sized := w.Header().Get("Content-Length") != ""; {
	case a.broken && sized:
		sent = rand.IntN(len(body)) // the whole body would make the response complete
	case a.broken:
		sent = rand.IntN(len(body) + 1)
	}
	for from := &(pieceReader{rest: body[:sent]}); len(from.rest) > 0; {
		buf := make([]byte, 20_000)
		n, _ := from.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			panic(http.ErrAbortHandler)
		}
		if rand.IntN(3) == 0 {
			_ = http.NewResponseController(w).Flush()
		}
	}
	if a.broken {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Sum", strconv.FormatUint(a.body, 16))
}

// untilClose answers with a response that ends with the connection. A response that
// must look broken ends in a reset.
func (c *chaos) untilClose(h http.Hijacker, name string, body []byte, broken bool) {
	conn, _, err := h.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	if broken {
		body = body[:rand.IntN(len(body)+1)]
	}
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nAnswer: %s\r\n\r\n", name)
	if _, err := conn.Write(body); err != nil || !broken {
		return
	}
	if n, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = n.NetConn()
	}
	conn.(*chaosConn).reset()
}

// refuse serves a connection of an upstream that refuses many requests: it
// resets streams, before or while their bodies arrive, and sends GOAWAY.
func (c *chaos) refuse(conn net.Conn) {
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(conn, conn)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	_ = fr.WriteWindowUpdate(0, 1<<30)
	type request struct {
		id   string
		body []byte
	}
	requests := make(map[uint32]*request)
	var last uint32
	leaving := false
	for !leaving || len(requests) > 0 {
		frame, err := fr.ReadFrame()
		if err != nil {
			return
		}
		id, end := frame.Header().StreamID, false
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			if requests[id] != nil {
				end = true // a trailer
				break
			}
			if leaving {
				continue
			}
			switch rand.IntN(10) {
			case 0, 1:
				_ = fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				continue
			case 2:
				_ = fr.WriteGoAway(last, http2.ErrCodeNo, nil)
				leaving = true
				continue
			}
			last = id
			r := &request{}
			for _, field := range f.Fields {
				if field.Name == "id" {
					r.id = field.Value
				}
			}
			c.process(r.id)
			requests[id] = r
			end = f.StreamEnded()
		case *http2.DataFrame:
			r := requests[id]
			if r == nil {
				continue
			}
			r.body = append(r.body, f.Data()...)
			end = f.StreamEnded()
		case *http2.RSTStreamFrame:
			delete(requests, id)
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = fr.WritePing(true, f.Data)
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = fr.WriteSettingsAck()
			}
		}
		if r := requests[id]; end && r != nil {
			delete(requests, id)
			c.received(r.id, r.body)
			c.answerStream(fr, id, r.id)
		}
	}
}

// answerStream sends a small response on a stream.
func (c *chaos) answerStream(fr *http2.Framer, stream uint32, id string) {
	name, body, a := c.answer(id)
	body = body[:min(len(body), 10_000)] // as much as fits into any window
	c.mu.Lock()
	a.body, a.length, a.trailer = crcOf(body), len(body), false
	c.mu.Unlock()
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	_ = enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = enc.WriteField(hpack.HeaderField{Name: "answer", Value: name})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true})
	if a.broken {
		_ = fr.WriteData(stream, false, body[:len(body)/2])
		_ = fr.WriteRSTStream(stream, http2.ErrCodeInternal)
		return
	}
	_ = fr.WriteData(stream, true, body)
}
