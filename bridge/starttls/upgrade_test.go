package starttls

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

func TestAnUpgradeLeavesTheConnectionForTLS(t *testing.T) {
	conn := serve(t, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
			t.Error(err)
		}
		io.WriteString(c, "S")
		hold(c)
	})
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	if err := Postgres.Upgrade(ctx, conn); err != nil {
		t.Fatal(err)
	}
	// No deadline is left on the connection, and no bytes were read ahead.
	conn.SetReadDeadline(time.Unix(1, 0))
	if _, err := conn.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("read %v", err)
	}
}

func TestNoneSendsNothing(t *testing.T) {
	if err := None.Upgrade(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// converse sends each part, after the client's message if the client speaks
// first.
func converse(c net.Conn, p Protocol, said []string) {
	for i, s := range said {
		if i > 0 || !p.ServerSpeaksFirst() {
			if _, err := c.Read(make([]byte, 512)); err != nil {
				return
			}
		}
		io.WriteString(c, s)
	}
}

// Each step of each protocol ends with ctx, or with the connection.
func TestAnUpgradeEndsWithItsContextOrConnection(t *testing.T) {
	for _, k := range talks {
		p := k.protocol
		for i, answer := range k.said {
			said := append(slices.Clone(k.said[:i]), answer[:len(answer)/2])
			stalled := serve(t, func(c net.Conn) {
				converse(c, p, said)
				hold(c)
			})
			if err := p.Upgrade(soon(t), stalled); certs.Classify(err) != certs.ReasonHandshakeTimeout || !strings.Contains(err.Error(), "waiting for the server: ") {
				t.Errorf("%v stalls after %q: %v", p, said, err)
			}
			closed := serve(t, func(c net.Conn) {
				converse(c, p, said)
				c.(*net.TCPConn).CloseWrite()
				hold(c)
			})
			if err := p.Upgrade(t.Context(), closed); certs.Classify(err) != certs.ReasonPeerClosed {
				t.Errorf("%v closes after %q: %v", p, said, err)
			}
			reset := serve(t, func(c net.Conn) {
				converse(c, p, said)
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			})
			if err := p.Upgrade(t.Context(), reset); certs.Classify(err) != certs.ReasonPeerClosed {
				t.Errorf("%v resets after %q: %v", p, said, err)
			}
		}
		canceled, cancel := context.WithCancel(t.Context())
		conn := serve(t, func(c net.Conn) { cancel(); hold(c) })
		if err := p.Upgrade(canceled, conn); certs.Classify(err) != certs.ReasonOther {
			t.Errorf("%v, canceled: %v", p, err)
		}
	}
}

// The handshake finds plaintext that arrives after the agreement.
func TestPlaintextInsteadOfAHandshakeIsAnInjection(t *testing.T) {
	conn := serve(t, func(c net.Conn) {
		io.WriteString(c, "Z\x00\x00\x00\x05I")
		hold(c)
	})
	err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).Handshake()
	if certs.Classify(err) != certs.ReasonNotTLS {
		t.Fatal(err)
	}
	if got := Postgres.Explain(err); certs.Classify(got) != certs.ReasonSTARTTLSInjection {
		t.Errorf("got %v", got)
	}
	if got := None.Explain(err); got != err {
		t.Errorf("without a protocol: %v", got)
	}
	if got := Postgres.Explain(io.EOF); got != io.EOF {
		t.Errorf("another error became %v", got)
	}
	if got := Postgres.Explain(nil); got != nil {
		t.Errorf("a nil error became %v", got)
	}
}
