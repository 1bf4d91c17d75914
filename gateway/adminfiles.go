package gateway

import (
	"context"
	"time"
)

// checkAdminFilesEvery is how often the TLS files of the admin service are read
// again. SIGHUP reads them too.
const checkAdminFilesEvery = time.Minute

// watchAdminFiles reloads the admin service's TLS files when they change, until ctx
// ends.
func (g *Gateway) watchAdminFiles(ctx context.Context) {
	tick := time.NewTicker(checkAdminFilesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			g.ReloadAdmin(ctx)
		}
	}
}

// ReloadAdmin reads the certificate, the key, the client CAs and the revocation
// lists of the admin service over TCP again, if that service is enabled. If a file
// is invalid, it logs the error and keeps the current settings.
func (g *Gateway) ReloadAdmin(ctx context.Context) {
	if g.adminTCP == nil {
		return
	}
	type result struct {
		changed bool
		err     error
	}
	done := make(chan result, 1)
	if err := g.compiler.Blocking(ctx, func() {
		changed, err := g.adminTCP.Reload()
		done <- result{changed, err}
	}); err != nil {
		g.log.Error("cannot read the files of the admin service", "error", err)
		return
	}
	switch r := <-done; {
	case r.err != nil:
		g.log.Error("the files of the admin service are invalid; keeping the current ones", "error", r.err)
	case r.changed:
		g.log.Info("admin service has new TLS settings", "certificate", g.adminTCP.Certificate().Info().Subject, "expires", g.adminTCP.Certificate().Info().NotAfter)
	}
}
