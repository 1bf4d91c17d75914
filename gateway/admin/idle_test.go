package admin

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// A client that holds a connection but answers nothing, not even pings, does
// not delay the stop, because no call is in progress.
func TestAClientThatOnlyHoldsAConnectionDoesNotDelayTheStop(t *testing.T) {
	r := start(t)
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the server's settings and its acknowledgment of the client's
		if _, err := framer.ReadFrame(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // shorter than a stop that waits for a ping
	defer cancel()
	if err := r.Shutdown(ctx); err != nil {
		t.Errorf("the stop was cut short: %v", err)
	}
}
