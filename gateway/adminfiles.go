package gateway

import (
	"context"
	"time"
)

// lookAtAdminFiles is how often the files of the admin service's own TLS are
// looked at, besides on SIGHUP.
const lookAtAdminFiles = time.Minute

// watchAdminFiles takes up other files of the admin service, until ctx ends.
func (g *Gateway) watchAdminFiles(ctx context.Context) {
	tick := time.NewTicker(lookAtAdminFiles)
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
// lists of the admin service over TCP again, if it is served. Files that are
// wrong are logged, and leave what is live as it is.
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
		g.log.Error("the files of the admin service cannot be read", "error", err)
		return
	}
	switch r := <-done; {
	case r.err != nil:
		g.log.Error("the files of the admin service are wrong; it goes on with what it has", "error", r.err)
	case r.changed:
		g.log.Info("admin service has new TLS settings", "certificate", g.adminTCP.Certificate().Info().Subject, "expires", g.adminTCP.Certificate().Info().NotAfter)
	}
}
