package admin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A client that holds a connection but answers nothing, not even pings, does
// not delay the stop, because no call is in progress.
func TestAClientThatOnlyHoldsAConnectionDoesNotDelayTheStop(t *testing.T) {
	stop := func() error {
		r := start(t)
		dialFrames(t, r)
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // shorter than a stop that waits for a ping
		defer cancel()
		return r.Shutdown(ctx)
	}
	var err error
	for range 5 { // a busy machine may delay a stop too
		if err = stop(); err == nil {
			return
		}
	}
	t.Errorf("the stop was cut short: %v", err)
}

// dialFrames returns a connection to the server on which the test writes frames itself. It
// answers nothing.
func dialFrames(t *testing.T, r *running) *http2.Framer {
	t.Helper()
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
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
	return framer
}

// A client that has not yet read the server's GOAWAY begins a call during the stop. It is
// answered, however long it takes.
func TestACallThatBeginsDuringTheStopIsAnswered(t *testing.T) {
	for range 5 { // on a busy machine, the call may come after the stop
		if beginDuringStop(t) {
			return
		}
	}
	t.Error("the stop ended before a call could begin")
}

// beginDuringStop makes a call during the stop of a server. It returns false if the stop
// ended before the call began.
func beginDuringStop(t *testing.T) bool {
	r := start(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	r.gateway.before = func(context.Context, store.Edit) {
		close(begun)
		<-finish
	}
	framer := dialFrames(t, r)
	stopped := make(chan error, 1)
	go func() { stopped <- r.Shutdown(context.Background()) }()
	if f, err := framer.ReadFrame(); err != nil || f.Header().Type != http2.FrameGoAway {
		t.Fatal(f, err)
	}
	if writeCall(framer, adminv1.AdminService_PutUpstream_FullMethodName, &adminv1.PutUpstreamRequest{Upstream: upstream("payments")}) != nil {
		<-stopped
		return false
	}
	select {
	case <-begun:
	case <-stopped:
		return false
	}
	answered := make(chan error, 1)
	go func() { answered <- awaitTrailers(framer) }()
	select {
	case err := <-answered:
		t.Fatalf("while the call is in progress: %v", err)
	case <-time.After(2 * flushTime): // a stop that does not wait for the call would be over
	}
	close(finish)
	if err := <-answered; err != nil {
		t.Errorf("the call was not answered: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("the stop: %v", err)
	}
	return true
}

// writeCall writes a unary call on stream 1.
func writeCall(framer *http2.Framer, method string, m proto.Message) error {
	var head bytes.Buffer
	fields := hpack.NewEncoder(&head)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := fields.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return err
		}
	}
	body, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	return errors.Join(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true}), framer.WriteData(1, true, body))
}

// awaitTrailers reads frames until one ends stream 1 with a response.
func awaitTrailers(framer *http2.Framer) error {
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		if h, ok := f.(*http2.HeadersFrame); ok && h.StreamEnded() {
			return nil
		}
	}
}
