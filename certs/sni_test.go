package certs_test

import (
	"os/exec"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// The error for a name that a listener refuses has its own reason in every TLS
// version.
func TestRefusedServerNames(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	cert := certstest.Certificate(t, certstest.NewCA(t).Server(t, "a.test"))
	for _, c := range []struct {
		name   string
		args   []string
		reject bool
		want   certs.Reason
	}{
		{"a known name", []string{"-servername", "a.test"}, true, ""},
		{"an unknown name", []string{"-servername", "b.test"}, true, certs.ReasonUnrecognizedName},
		{"no name", []string{"-noservername"}, true, certs.ReasonUnrecognizedName},
	} {
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			t.Run(c.name+version, func(t *testing.T) {
				s := serve(t, newServer(t, certs.ServerOptions{Certificates: []*certs.Certificate{cert}, RejectUnknownSNI: c.reject}).Conn)
				cmd := exec.CommandContext(t.Context(), path, append([]string{"s_client", "-connect", s.addr, version}, c.args...)...)
				out, _ := cmd.CombinedOutput() // it fails or ends with its input
				shaken := <-s.handshakes
				if got := certs.ClassifyAccept(shaken.err); got != c.want {
					t.Errorf("reason %q, want %q: %v\n%s", got, c.want, shaken.err, out)
				}
			})
		}
	}
}
