package proxy

import (
	"context"
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
)

// Stunnel is stunnel, with a thread for each connection.
type Stunnel struct{}

// Name implements Kind.
func (Stunnel) Name() string { return "stunnel" }

// Version implements Kind.
func (Stunnel) Version(ctx context.Context) (string, error) {
	out, err := output(ctx, stunnel(), "-version")
	return lineWith(out, "stunnel "), err
}

// stunnel returns the program's name on this machine: Debian calls it
// stunnel4.
func stunnel() string {
	if _, err := lookPath("stunnel4"); err == nil {
		return "stunnel4"
	}
	return "stunnel"
}

// Unsupported implements Kind.
func (Stunnel) Unsupported(s Service) string {
	switch {
	case s.Admin:
		return noAdmin
	case s.HTTP:
		return "speaks no HTTP"
	case s.ListenTLS:
		return "has no service with TLS on both sides"
	}
	return ""
}

func (Stunnel) command(w work) (command, error) {
	path, err := lookPath(stunnel())
	if err != nil {
		return command{}, err
	}
	conf, err := w.file("stunnel.conf", stunnelConfig(w))
	return command{path: path, args: []string{conf}}, err
}

func stunnelConfig(w work) string {
	resume, protocol := "yes", ""
	if w.service.NoResumption {
		resume = "no"
	}
	if w.service.Postgres {
		protocol = "protocol = pgsql\n"
	}
	return fmt.Sprintf(`foreground = yes
pid =
debug = err
[bench]
client = yes
accept = %s
connect = %s
cert = %s
key = %s
CAfile = %s
verifyChain = yes
checkHost = %s
sni = %s
sslVersionMin = TLSv1.2
sessionResume = %s
TIMEOUTidle = 3600
%s`, w.listen, w.backend, w.keys.Client.Chain, w.keys.Client.Key, w.keys.CA, keys.BackendName, keys.BackendName, resume, protocol)
}
