// Hundreds of watchers that do not read cost little memory, and the gateway
// returns it after they have disconnected.

package e2e

import (
	"fmt"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestWatchersThatDoNotRead(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	g := startGateway(t)
	ctx := scaleContext(t)
	req := &adminv1.ApplyRequest{}
	for i := range 1500 {
		c := certificate(fmt.Sprintf("c-%05d", i), a.client)
		c.Labels = padding(7 << 10)
		req.Resources = append(req.Resources, &adminv1.Resource{Kind: &adminv1.Resource_Certificate{Certificate: c}})
	}
	if _, err := g.admin.Apply(ctx, req); err != nil {
		t.Fatal(err)
	}
	pid := g.cmd.Process.Pid
	before := memory(t, pid, "VmRSS")

	// Sending a whole stream at once would take 10 MB.
	const streams, each = 400, 8
	accepted := 0
	var closers []func() error
	for i := range streams / each {
		conn := dialAdmin(t, "unix:"+g.socket, insecure.NewCredentials())
		closers = append(closers, conn.Close)
		for range each {
			w, err := adminv1.NewAdminServiceClient(conn).WatchConfig(ctx, &adminv1.WatchConfigRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if h, err := w.Header(); err == nil && h != nil {
				accepted++
				continue // this watcher does not read
			}
			_, err = w.Recv()
			reason := ""
			for _, d := range status.Convert(err).Details() {
				if info, ok := d.(*errdetails.ErrorInfo); ok {
					reason = info.GetReason()
				}
			}
			if status.Code(err) != codes.ResourceExhausted || reason != "TOO_MANY_STREAMS" {
				t.Fatalf("a stream of connection %d: %v", i, err)
			}
		}
	}
	if accepted != 64 {
		t.Errorf("%d streams were accepted", accepted)
	}
	// The gateway's idle collector returns the garbage of the answers, so only the
	// memory of the streams is left. Without the bound it was 790 MiB.
	const most = 128 << 20
	eventually(t, "watchers that do not read hold little", func() bool { return memory(t, pid, "VmRSS") < before+most })
	for _, end := range closers {
		if err := end(); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "unused memory is returned to the kernel", func() bool { return memory(t, pid, "VmRSS") < before+(32<<20) })
	g.getStatus()
}
