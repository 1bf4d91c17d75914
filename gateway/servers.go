package gateway

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/access"
	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/ops"
)

// servers are the gateway's own servers: the admin API and ops.
type servers struct {
	log      hclog.Logger
	admin    *admin.Server
	sockets  []net.Listener     // sockets of the admin API; the first is the unix socket
	adminTCP *admin.TCPListener // nil: no admin API over TCP; otherwise sockets contains it too
	ops      *ops.Server        // nil: no ops server
	access   *access.Controller

	// blocking runs a function that reads files, which can hang, like
	// snapshot.Compiler.Blocking.
	blocking func(context.Context, func()) error

	policyFault atomic.Pointer[string] // why the policy file cannot be used now, or nil
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
