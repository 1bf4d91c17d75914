package gateway

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/ops"
)

// servers are the gateway's own servers: the admin API and ops.
type servers struct {
	log      hclog.Logger
	admin    *admin.Server
	sockets  []net.Listener     // of the admin API; the first is the unix socket
	adminTCP *admin.TCPListener // nil: no admin API over TCP; else also in sockets
	ops      *ops.Server        // nil: none

	// blocking runs a function that reads files, which can hang, like
	// snapshot.Compiler.Blocking.
	blocking func(context.Context, func()) error
}

// serve starts every server in serving. A server that fails sends its error on
// failed.
func (s *servers) serve(serving *sync.WaitGroup, failed chan<- error) {
	for _, socket := range s.sockets {
		s.log.Info("admin API up", "address", listeners.AddressText(socket.Addr()))
		serving.Go(func() {
			if err := s.admin.Serve(socket); err != nil {
				failed <- fmt.Errorf("admin API on %s: %w", listeners.AddressText(socket.Addr()), err)
			}
		})
	}
	if s.ops != nil {
		s.log.Info("ops up", "address", s.ops.Addr().String())
		serving.Go(func() {
			if err := s.ops.Serve(); err != nil {
				failed <- fmt.Errorf("ops on %s: %w", s.ops.Addr(), err)
			}
		})
	}
}

// running returns how many servers serve runs.
func (s *servers) running() int {
	if s.ops == nil {
		return len(s.sockets)
	}
	return len(s.sockets) + 1
}

// closeSockets closes the sockets of servers that were never served.
func (s *servers) closeSockets() {
	for _, socket := range s.sockets {
		socket.Close()
	}
}

// AdminAddress returns the address of the admin API's unix socket: "unix:/…".
func (s *servers) AdminAddress() string { return listeners.AddressText(s.sockets[0].Addr()) }

// AdminTCPAddress returns the address of the admin API over TCP. It is empty if
// the API is not served over TCP.
func (s *servers) AdminTCPAddress() string {
	if s.adminTCP == nil {
		return ""
	}
	return s.adminTCP.Addr().String()
}

// OpsAddress returns the address of the ops server, which serves /metrics. It is
// empty if there is no ops server.
func (s *servers) OpsAddress() string {
	if s.ops == nil {
		return ""
	}
	return s.ops.Addr().String()
}

// checkAdminFilesEvery is how often the TLS files of the admin service are read
// again. SIGHUP reads them too.
const checkAdminFilesEvery = time.Minute

// watchAdminFiles reloads the admin service's TLS files when they change, until ctx
// ends.
func (s *servers) watchAdminFiles(ctx context.Context) {
	tick := time.NewTicker(checkAdminFilesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.ReloadAdmin(ctx)
			s.revalidateAdmin() // certificates and revocation lists expire without a change
		}
	}
}

// revalidateAdmin ends the admin API's connections whose clients no longer verify.
func (s *servers) revalidateAdmin() {
	s.adminTCP.Revalidate(func(client, subject string, why error) {
		s.log.Warn("admin connection closed: the caller is no longer admitted", "client", client, "caller", subject, "error", why)
	})
}

// ReloadAdmin reads the certificate, the key, the client CAs and the revocation
// lists of the admin service over TCP again, if that service is enabled, and ends
// the connections of callers that are no longer admitted. If a file is invalid, it
// logs the error and keeps the current settings.
func (s *servers) ReloadAdmin(ctx context.Context) {
	if s.adminTCP == nil {
		return
	}
	type result struct {
		changed bool
		err     error
	}
	done := make(chan result, 1)
	if err := s.blocking(ctx, func() {
		changed, err := s.adminTCP.Reload()
		done <- result{changed, err}
	}); err != nil {
		s.log.Error("cannot read the files of the admin service", "error", err)
		return
	}
	switch r := <-done; {
	case r.err != nil:
		s.log.Error("the files of the admin service are invalid; keeping the current ones", "error", r.err)
	case r.changed:
		s.log.Info("admin service has new TLS settings", "certificate", s.adminTCP.Certificate().Info().Subject, "expires", s.adminTCP.Certificate().Info().NotAfter)
		s.revalidateAdmin()
	}
}
