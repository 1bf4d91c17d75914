// A Postfix that requires TLS and a client certificate serves clients of
// plaintext SMTP.

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// startPostfix runs a Postfix that accepts all mail and delivers it into files
// in the returned directory.
func startPostfix(t testing.TB, a *authority) (*daemon, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("Postfix runs only as root")
	}
	master := needFile(t, "/usr/lib/postfix/sbin/master")
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil { // its processes run as other users
		t.Fatal(err)
	}
	a.writeServer(t, dir)
	mail := filepath.Join(dir, "mail")
	for _, d := range []string{mail, filepath.Join(dir, "queue"), filepath.Join(dir, "data")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "chown", "postfix", mail, filepath.Join(dir, "data"))
	return startDaemon(t, 1, func(addresses []string) []string {
		uid := strings.TrimSpace(run(t, "id", "-u", "postfix"))
		for name, text := range map[string]string{
			"main.cf": `
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.example.com
mydestination =
virtual_mailbox_domains = example.com
virtual_mailbox_base = DIR/mail
virtual_mailbox_maps = static:box
virtual_minimum_uid = 1
virtual_uid_maps = static:UID
virtual_gid_maps = static:UID
alias_maps =
smtpd_tls_security_level = encrypt
smtpd_tls_req_ccert = yes
smtpd_tls_cert_file = DIR/server.pem
smtpd_tls_key_file = DIR/server.key
smtpd_tls_CAfile = DIR/ca.pem
smtpd_relay_restrictions = permit_tls_all_clientcerts, reject
smtpd_tls_received_header = yes
maillog_file = /dev/stdout
`,
			"master.cf": `
ADDRESS inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
tlsmgr unix - - n 1000? 1 tlsmgr
virtual unix - n n - - virtual
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`,
		} {
			text = strings.NewReplacer("DIR", dir, "ADDRESS", addresses[0], "UID", uid).Replace(text)
			writeFile(t, filepath.Join(dir, name), []byte(text))
		}
		run(t, "chmod", "644", filepath.Join(dir, "main.cf"), filepath.Join(dir, "master.cf"))
		run(t, need(t, "postfix"), "-c", dir, "check")
		return []string{master, "-c", dir, "-d"}
	}), mail
}

func TestPostfixBehindMutualTLS(t *testing.T) {
	t.Parallel()
	swaks := need(t, "swaks")
	a := newAuthority(t)
	d, mail := startPostfix(t, a)
	g := startGateway(t)
	anonymous := a.startsTLS("anonymous", adminv1.Starttls_STARTTLS_SMTP, d.addresses[0])
	anonymous.GetTls().Certificate = ""
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), a.startsTLS("smtp", adminv1.Starttls_STARTTLS_SMTP, d.addresses[0]), anonymous,
		listener("smtp", protocolTCP, "smtp"), listener("anonymous", protocolTCP, "anonymous"))
	send := func(address string) result {
		return command(t, swaks, "--server", address, "--from", "a@example.com", "--to", "bob@example.com", "--helo", "client.example", "--body", "hello through the bridge", "--timeout", "90s")
	}
	if r := send(d.addresses[0]); r.code == 0 || !strings.Contains(r.stdout, "Must issue a STARTTLS command first") {
		t.Fatalf("the server accepts plaintext: %v", r)
	}
	if r := g.probe("smtp"); r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK || !r.GetClientCertificateSent() {
		t.Errorf("the probe: %v", r)
	}
	if r := send(g.address("smtp")); r.code != 0 || !strings.Contains(r.stdout, "220 mail.example.com ESMTP") || strings.Contains(r.stdout, "STARTTLS") {
		t.Errorf("swaks: %v", r)
	}
	if r := send(g.address("anonymous")); r.code == 0 || strings.Contains(r.stdout, "mail.example.com") {
		t.Errorf("without a certificate: %v", r)
	}
	eventually(t, "the message is delivered over TLS with the gateway's certificate", func() bool {
		message, _ := os.ReadFile(filepath.Join(mail, "box"))
		return strings.Contains(string(message), "hello through the bridge") && strings.Contains(string(message), `Client CN "e2e client"`)
	})

	// The client starts TLS itself, and the gateway starts TLS with the server.
	front := startsTLSListener("front", adminv1.Starttls_STARTTLS_SMTP, "smtp")
	optional := startsTLSListener("optional", adminv1.Starttls_STARTTLS_SMTP, "smtp")
	optional.Tls.StarttlsOptional = true
	g.apply(certificate("server", a.server), front, optional)
	root := writeFile(t, filepath.Join(shortDir(t), "ca.pem"), a.ca.RootPEM())
	verified := []string{"--tls", "--tls-verify", "--tls-ca-path", root}
	for name, c := range map[string]struct {
		listener string
		options  []string
		ok       bool
	}{
		"with TLS": {"front", verified, true}, "in plaintext": {"front", nil, false},
		"with optional TLS": {"optional", verified, true}, "in plaintext, which is allowed": {"optional", nil, true},
	} {
		args := append([]string{"--server", g.address(c.listener), "--from", "a@example.com", "--to", "bob@example.com", "--helo", "client.example", "--body", name, "--timeout", "90s"}, c.options...)
		if r := command(t, swaks, args...); (r.code == 0) != c.ok || c.options != nil && !strings.Contains(r.stdout, "=== TLS started") {
			t.Errorf("swaks %s: %v", name, r)
		}
	}
	if r := command(t, need(t, "openssl"), "s_client", "-connect", g.address("front"), "-starttls", "smtp", "-CAfile", root, "-verify_return_error"); r.code != 0 {
		t.Errorf("openssl s_client: %v", r)
	}
}
