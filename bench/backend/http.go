package backend

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bench/wire"
)

// StartHTTP serves HTTP on a port of loopback that the kernel chooses:
// HTTP/1.1, and HTTP/2 too if config offers h2. A path /bytes/N/SEED returns N
// bytes of the pattern of that seed, /sink/N/SEED receives them, and
// WebSocketPath speaks WebSocket.
func StartHTTP(config *tls.Config) (*Backend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &Backend{listener: l}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(slices.Contains(config.NextProtos, "h2"))
	mux := http.NewServeMux()
	mux.HandleFunc(WebSocketPath, echoMessages)
	mux.HandleFunc("/bytes/", b.answer)
	mux.HandleFunc("/sink/", b.take)
	server := &http.Server{
		Handler: mux, TLSConfig: b.counted(config), Protocols: &protocols,
		ErrorLog: log.New(io.Discard, "", 0), // discards errors about connections that proxies closed
	}
	b.closeServer = server.Close
	b.wg.Go(func() { _ = server.ServeTLS(l, "", "") })
	return b, nil
}

// counted returns config for a server that does not report handshakes.
func (b *Backend) counted(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.VerifyConnection = func(s tls.ConnectionState) error {
		b.Handshakes.Add(1)
		if s.DidResume {
			b.Resumed.Add(1)
		}
		return nil
	}
	return config
}

func (b *Backend) answer(w http.ResponseWriter, r *http.Request) {
	size, seed, ok := b.asked(w, r, "/bytes/")
	if !ok {
		return
	}
	h := w.Header()
	h["Content-Type"] = octets
	h["Content-Length"] = []string{strconv.FormatUint(size, 10)}
	for offset := uint64(0); offset < size; {
		n := min(size-offset, 64<<10)
		if _, err := w.Write(wire.At(seed, offset, int(n))); err != nil {
			return // the client gets an error
		}
		offset += n
	}
}

// take receives a body, and answers without one.
func (b *Backend) take(w http.ResponseWriter, r *http.Request) {
	size, seed, ok := b.asked(w, r, "/sink/")
	if !ok {
		return
	}
	buf := make([]byte, 64<<10)
	for offset := uint64(0); ; {
		n, err := r.Body.Read(buf)
		if !wire.Matches(seed, offset, buf[:n]) || err == io.EOF && offset+uint64(n) != size {
			b.Mismatched.Add(1)
			http.Error(w, "unexpected body", http.StatusBadRequest)
			return
		}
		offset += uint64(n)
		b.Received.Add(int64(n))
		if err != nil {
			return // the body has ended, or the client has disconnected
		}
	}
}

// asked parses a request. It answers an invalid request itself.
func (b *Backend) asked(w http.ResponseWriter, r *http.Request, prefix string) (size, seed uint64, ok bool) {
	if size, seed, ok = parsePath(r.URL.Path, prefix); !ok {
		b.Mismatched.Add(1)
		http.Error(w, "no such path", http.StatusNotFound)
	}
	return size, seed, ok
}

// octets is a header's value; it is never modified.
var octets = []string{"application/octet-stream"}

// parsePath parses the part after a prefix: N/SEED, with a hexadecimal seed.
func parsePath(path, prefix string) (size, seed uint64, ok bool) {
	path, ok = strings.CutPrefix(path, prefix)
	n, s, found := strings.Cut(path, "/")
	size, errSize := strconv.ParseUint(n, 10, 40)
	seed, errSeed := strconv.ParseUint(s, 16, 64)
	return size, seed, ok && found && errSize == nil && errSeed == nil
}
