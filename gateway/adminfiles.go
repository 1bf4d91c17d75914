package gateway

import (
	"context"
	"time"
)

// Intervals at which the admin service's files are read again. SIGHUP reads them
// too.
const (
	checkAdminTLSEvery = time.Minute
	checkPolicyEvery   = 5 * time.Second // short, so that a revoked role ends soon
)

// watchAdminFiles reloads the admin service's policy and TLS files when they change,
// until ctx ends.
func (s *servers) watchAdminFiles(ctx context.Context) {
	tls, policy := time.NewTicker(checkAdminTLSEvery), time.NewTicker(checkPolicyEvery)
	defer tls.Stop()
	defer policy.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-policy.C:
			s.reloadPolicy(ctx)
		case <-tls.C:
			s.reloadAdminTLS(ctx)
			s.revalidateAdmin() // certificates and revocation lists can expire although no file changed
		}
	}
}

// ReloadAdmin reads the policy of the admin service again, if there is one, and the TLS
// files of the admin service over TCP: the certificate, the key, the client CAs and the
// revocation lists. It ends the connections of callers that are no longer admitted, and
// the streams of callers that have lost their role. If a file is invalid, it logs the
// error and keeps the current settings.
func (s *servers) ReloadAdmin(ctx context.Context) {
	s.reloadPolicy(ctx)
	s.reloadAdminTLS(ctx)
}

func (s *servers) reloadPolicy(ctx context.Context) {
	if !s.access.HasFile() {
		return
	}
	changed, err := s.reload(ctx, s.access.Reload)
	switch before := s.policyFault.Load(); {
	case ctx.Err() != nil: // the gateway is stopping
	case err != nil:
		if text := err.Error(); before == nil || *before != text {
			s.policyFault.Store(&text)
			s.log.Error("the policy of the admin service is invalid; keeping the current one", "error", err)
		}
	case changed || before != nil:
		s.policyFault.Store(nil)
		s.log.Info("policy of the admin service loaded", "changed", changed)
	}
}

func (s *servers) reloadAdminTLS(ctx context.Context) {
	if s.adminTCP == nil {
		return
	}
	switch changed, err := s.reload(ctx, s.adminTCP.Reload); {
	case err != nil:
		s.log.Error("the TLS files of the admin service are invalid; keeping the current ones", "error", err)
	case changed:
		info := s.adminTCP.Certificate().Info()
		s.log.Info("admin service has new TLS settings", "certificate", info.Subject, "expires", info.NotAfter)
		s.revalidateAdmin()
	}
}

// reload runs a function that reads files.
func (s *servers) reload(ctx context.Context, read func() (changed bool, err error)) (bool, error) {
	var changed bool
	var failed error
	if err := s.blocking(ctx, func() { changed, failed = read() }); err != nil {
		return false, err // read may still be running
	}
	return changed, failed
}

// revalidateAdmin ends the admin API's connections whose clients no longer verify.
func (s *servers) revalidateAdmin() {
	if s.adminTCP == nil {
		return
	}
	s.adminTCP.Revalidate(func(client, subject string, cause error) {
		s.log.Warn("admin connection closed: the caller no longer has access", "client", client, "caller", subject, "error", cause)
	})
}
