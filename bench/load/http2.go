package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/wire"
)

// HTTP2 is HTTP over HTTP/2, with the given number of concurrent requests on
// each connection. Its unit is the request. The target must have TLS settings
// that offer h2.
func HTTP2(conns, streams int, size uint64) Func {
	return func(ctx context.Context, target Target, m *Meter) {
		transports := make([]*http.Transport, conns)
		for i := range transports {
			transports[i] = transport2(target)
			defer transports[i].CloseIdleConnections()
		}
		each(ctx, m, conns*streams, func(i int) error {
			client := &http.Client{Transport: transports[i/streams]}
			r := m.recorder()
			buf := make([]byte, 32<<10)
			for first := true; ; first = false {
				start := time.Now()
				if err := get2(ctx, client, target, size, buf); err != nil {
					return err
				}
				r.record(time.Since(start))
				m.add(1)
				if first {
					m.workerReady()
				}
			}
		})
	}
}

// transport2 returns a client that speaks only HTTP/2.
func transport2(target Target) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	return &http.Transport{
		TLSClientConfig: target.TLS.Clone(), Protocols: &protocols, // the transport modifies it
		TLSHandshakeTimeout: dialTimeout, DisableCompression: true,
	}
}

func get2(ctx context.Context, client *http.Client, target Target, size uint64, buf []byte) error {
	seed := rand.Uint64()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%s/bytes/%d/%x", target.Address, size, seed), nil)
	if err != nil {
		return err
	}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
		return fmt.Errorf("an answer is %s %s", res.Proto, res.Status)
	}
	for offset := uint64(0); ; {
		n, err := res.Body.Read(buf)
		if !wire.Matches(seed, offset, buf[:n]) {
			return errMismatch
		}
		offset += uint64(n)
		switch {
		case errors.Is(err, io.EOF) && offset == size:
			return nil
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
}
