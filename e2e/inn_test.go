// An INN that requires TLS serves plaintext newsreaders. INN cannot require a
// client certificate.

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// startINN runs INN's server for readers, with one group.
func startINN(t testing.TB, a *authority) *daemon {
	t.Helper()
	program := needFile(t, "/usr/lib/news/bin/nnrpd")
	dir := shortDir(t)
	a.writeServer(t, dir)
	for name, text := range map[string]string{
		"inn.conf": `
pathhost: news.example.com
domain: example.com
mta: "/bin/true %s"
hismethod: hisv6
enableoverview: true
ovmethod: tradindexed
readerswhenstopped: true
nnrpdloadlimit: 0
pathnews: /usr/lib/news
pathbin: /usr/lib/news/bin
patharticles: DIR/articles
pathdb: DIR
pathetc: DIR
pathfilter: DIR
pathlog: DIR
pathoverview: DIR/overview
pathrun: DIR
pathspool: DIR
pathtmp: DIR
tlscertfile: DIR/server.pem
tlskeyfile: DIR/server.key
`,
		"readers.conf": `
auth "all" {
  hosts: "127.0.0.1"
  default: "reader"
  require_encryption: true
}
access "all" {
  users: "*"
  newsgroups: "*"
  access: RPA
}
`,
		"storage.conf": "method tradspool {\n  newsgroups: *\n  class: 0\n}\n",
		"active":       "misc.test 0000000000 0000000001 y\n", "newsgroups": "misc.test\tA test\n",
		"active.times": "", "expire.ctl": "", "history": "", "inn-secrets.conf": "", "tradspool.map": "",
	} {
		writeFile(t, filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)))
	}
	for _, d := range []string{"articles", "overview"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	as := append(unprivileged(t, "news", dir), "env", "-C", dir, "INNCONF="+filepath.Join(dir, "inn.conf"))
	// makehistory creates the overview index, and then does not find any articles.
	index := append(as, "/usr/lib/news/bin/makehistory", "-O", "-a", "-F")
	command(t, index[0], index[1:]...)
	return startDaemon(t, 1, func(addresses []string) []string {
		host, port, _ := net.SplitHostPort(addresses[0])
		return append(as, program, "-D", "-f", "-b", host, "-p", port, "-c", filepath.Join(dir, "readers.conf"))
	})
}

func TestINNBehindTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	d := startINN(t, a)
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), a.startsTLS("news", adminv1.Starttls_STARTTLS_NNTP, d.addresses[0]), listener("news", protocolTCP, "news"))
	converse(t, d.addresses[0], "", "20", "LIST", "480", "QUIT", "205")
	if r := g.probe("news"); r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK {
		t.Errorf("the probe: %v", r)
	}
	if said := converse(t, g.address("news"), "", "200 ready, posting allowed", "LIST", ".\r", "GROUP misc.test", "211", "QUIT", "205"); !strings.Contains(said, "misc.test 0000000000 0000000001 y") {
		t.Errorf("the newsreader got: %s", said)
	}

	g.apply(certificate("server", a.server), startsTLSListener("front", adminv1.Starttls_STARTTLS_NNTP, "news"))
	converse(t, g.address("front"), "", "200 ready", "LIST", "483", "QUIT", "205")
	root := writeFile(t, filepath.Join(shortDir(t), "ca.pem"), a.ca.RootPEM())
	if r := commandInput(t, "LIST\nQUIT\n", need(t, "openssl"), "s_client", "-quiet", "-crlf", "-connect", g.address("front"), "-starttls", "nntp", "-CAfile", root, "-verify_return_error"); !strings.Contains(r.stdout, "misc.test 0000000000 0000000001 y") {
		t.Errorf("openssl s_client: %v", r)
	}
}
