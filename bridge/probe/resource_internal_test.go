package probe

import (
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

// An endless connection returns bytes without end.
type endless struct{ net.Conn }

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func (endless) SetReadDeadline(time.Time) error { return nil }

// The probe keeps no more bytes from an endpoint than it shows.
func TestAProbeKeepsLittleOfTheReceivedData(t *testing.T) {
	const received = 1 << 20
	alloctest.WantCost(t, received, alloctest.Bound{}, func() {
		r := &recorder{Conn: endless{}}
		for p := make([]byte, 4096); r.total < received; {
			if _, err := r.Read(p); err != nil {
				t.Fatal(err)
			}
		}
		if firstBytes := r.readFirst(); len(firstBytes) != maxFirstBytes || cap(firstBytes) > 2*maxFirstBytes {
			t.Errorf("%d bytes are kept, in %d", len(firstBytes), cap(firstBytes))
		}
	})
}
