package probe

import (
	"bytes"
	"crypto/tls"
	"net"
	"slices"
	"testing"
)

// goHello returns the record in which crypto/tls sends its ClientHello.
func goHello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	sent := make(chan []byte, 1)
	go func() {
		buf := make([]byte, 32<<10)
		n, _ := far.Read(buf)
		sent <- buf[:n]
		far.Close()
	}()
	tls.Client(near, config).Handshake()
	return <-sent
}

// A hello equals the ClientHello of crypto/tls, except for the added code
// points.
func TestHelloOffersMoreAndChangesNothingElse(t *testing.T) {
	record := goHello(t, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2"}})
	h, err := parseHello(record)
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.record()
	if err != nil {
		t.Fatal(err)
	}
	const random = recordHeaderBytes + 4 + 2
	if len(again) != len(record) || !bytes.Equal(again[3:random], record[3:random]) || !bytes.Equal(again[random+32:], record[random+32:]) {
		t.Error("the unchanged ClientHello differs")
	}
	if bytes.Equal(again[random:random+32], record[random:random+32]) {
		t.Error("the random value is the same")
	}
	groups := h.list(extGroups)
	more := h.offering(extGroups, []uint16{30}).offeringSuites([]uint16{0x009e, h.suites[0]}).offeringSchemes([]uint16{0x0808})
	if got := more.list(extGroups); !slices.Equal(got, append(groups, 30)) || !slices.Equal(h.list(extGroups), groups) {
		t.Errorf("groups %d", got)
	}
	if len(more.suites) != len(h.suites)+1 || !slices.Contains(more.list(extCertSchemes), 0x0808) || !slices.Contains(more.list(extSchemes), 0x0808) {
		t.Errorf("suites %x, schemes %x", more.suites, more.list(extSchemes))
	}
	hasVersions := func(h *hello) bool {
		return slices.ContainsFunc(h.extensions, func(e extension) bool { return e.kind == extVersions })
	}
	if old := h.upToTLS12(); hasVersions(old) || !hasVersions(h) {
		t.Errorf("supported_versions is in the ClientHello for TLS 1.2: %v, and in the other: %v", hasVersions(old), hasVersions(h))
	}
}

// FuzzFlight reads the answers of hostile servers.
func FuzzFlight(f *testing.F) {
	f.Add([]byte{21, 3, 3, 0, 2, 2, 40})
	f.Add(append([]byte{22, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3}, make([]byte, 36)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readFlight(bytes.NewReader(data))
		if (got == nil) == (err == nil) || got != nil && got.version == 0 {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(goHello(f, &tls.Config{ServerName: "a.test"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHello(data)
		if err != nil {
			return
		}
		if _, err := h.offering(extGroups, idsOf(otherGroups)).upToTLS12().record(); err != nil && len(data) < 1<<15 {
			t.Error(err)
		}
	})
}
