// A Dovecot that requires TLS and a client certificate serves plaintext clients
// of IMAP, POP3, LMTP and ManageSieve.

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// dovecotServices are the protocols in the order of the server's addresses.
var dovecotServices = []struct {
	name, service string
	protocol      adminv1.Starttls
}{
	{"imap", "imap-login", adminv1.Starttls_STARTTLS_IMAP}, {"pop3", "pop3-login", adminv1.Starttls_STARTTLS_POP3},
	{"lmtp", "lmtp", adminv1.Starttls_STARTTLS_LMTP}, {"sieve", "managesieve-login", adminv1.Starttls_STARTTLS_SIEVE},
}

func startDovecot(t testing.TB, a *authority) *daemon {
	t.Helper()
	program := needFile(t, "/usr/sbin/dovecot")
	dir := shortDir(t)
	a.writeServer(t, dir)
	as := unprivileged(t, "dovecot", dir)
	owner := "dovecot"
	if as[0] == "env" {
		u, err := user.Current()
		if err != nil {
			t.Fatal(err)
		}
		owner = u.Username
	}
	u, err := user.Lookup(owner)
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return startDaemon(t, len(dovecotServices), func(addresses []string) []string {
		var b strings.Builder
		fmt.Fprintf(&b, `
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
default_internal_user = %[2]s
default_internal_group = %[3]s
default_login_user = %[2]s
protocols = imap pop3 lmtp sieve
ssl = required
ssl_cert = <%[1]s/server.pem
ssl_key = <%[1]s/server.key
ssl_ca = <%[1]s/ca.pem
ssl_verify_client_cert = yes
ssl_require_crl = no
auth_ssl_require_client_cert = yes
postmaster_address = postmaster@example.com
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=%[4]s gid=%[5]s home=%[1]s/home/%%u allow_all_users=yes
}
mail_location = maildir:%[1]s/mail/%%u
first_valid_uid = 0
service anvil {
  chroot =
}
`, dir, owner, group.Name, u.Uid, u.Gid)
		for i, s := range dovecotServices {
			host, port, _ := net.SplitHostPort(addresses[i])
			fmt.Fprintf(&b, "service %s {\n  chroot =\n  inet_listener %s {\n    address = %s\n    port = %s\n  }\n  inet_listener %ss {\n    port = 0\n  }\n}\n", s.service, s.name, host, port, s.name)
		}
		conf := writeFile(t, filepath.Join(dir, "dovecot.conf"), []byte(b.String()))
		unprivileged(t, "dovecot", dir)
		return append(as, program, "-F", "-c", conf)
	})
}

// converse plays a dialog with a server. The dialog alternates between a text
// to send and the beginning of the expected line; converse skips other lines.
// It returns everything that the server sent.
func converse(t testing.TB, address string, dialog ...string) string {
	t.Helper()
	conn := dial(t, address)
	defer conn.Close()
	var said strings.Builder
	r := bufio.NewReader(io.TeeReader(conn, &said))
	for i, s := range dialog {
		if i%2 == 0 {
			if s == "" {
				continue
			}
			if _, err := io.WriteString(conn, s+"\r\n"); err != nil {
				t.Errorf("%s: %v after:\n%s", s, err, said.String())
				return said.String()
			}
			continue
		}
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Errorf("%q was answered without %q: %v\n%s", dialog[i-1], s, err, said.String())
				return said.String()
			}
			if strings.HasPrefix(line, s) {
				break
			}
		}
	}
	return said.String()
}

func TestDovecotBehindMutualTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	d := startDovecot(t, a)
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client))
	for i, s := range dovecotServices {
		u := a.startsTLS(s.name, s.protocol, d.addresses[i])
		u.HealthCheck = &adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Tls{Tls: &adminv1.TlsCheck{}}}
		g.apply(u, listener(s.name, protocolTCP, s.name))
		if r := g.probe(s.name); r.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK || !r.GetClientCertificateSent() || !strings.Contains(r.GetExplanation(), "to start TLS, and completed the handshake") {
			t.Errorf("the probe of %s: %v", s.name, r)
		}
	}
	const message = "From: <a@example.com>\r\nSubject: through the bridge\r\n\r\n..dotted\r\nhello\r\n."
	converse(t, g.address("lmtp"), "", "220 ", "LHLO client.example", "250 ", "MAIL FROM:<a@example.com>", "250", "RCPT TO:<bob@example.com>", "250", "DATA", "354", message, "250", "QUIT", "221")
	if said := converse(t, g.address("imap"), "", "* OK [CAPABILITY IMAP4", "a LOGIN bob@example.com secret", "a OK", "b SELECT INBOX", "b OK", "c FETCH 1 BODY[]", "c OK", "d LOGOUT", "d OK"); !strings.Contains(said, ".dotted\r\nhello\r\n") || !strings.Contains(said, "* 1 EXISTS") {
		t.Errorf("IMAP: %s", said)
	}
	if said := converse(t, g.address("pop3"), "", "+OK ready", "USER bob@example.com", "+OK", "PASS secret", "+OK", "RETR 1", ".\r", "QUIT", "+OK"); !strings.Contains(said, "\r\n..dotted\r\nhello\r\n") {
		t.Errorf("POP3: %s", said)
	}
	if said := converse(t, g.address("sieve"), "", "OK", `AUTHENTICATE "PLAIN" "AGJvYkBleGFtcGxlLmNvbQBzZWNyZXQ="`, "OK", `PUTSCRIPT "x" "keep;"`, "OK", "LISTSCRIPTS", `"x"`, "LOGOUT", "OK"); strings.Contains(said, `"STARTTLS"`) {
		t.Errorf("ManageSieve: %s", said)
	}
	if r := command(t, need(t, "curl"), "-sS", "--user", "bob@example.com:secret", "imap://"+g.address("imap")+"/INBOX;MAILINDEX=1"); r.code != 0 || !strings.Contains(r.stdout, "through the bridge") {
		t.Errorf("curl: %v", r)
	}

	// A server of another protocol is rejected because of its greeting, and the
	// client receives no byte of that greeting.
	wrong := a.startsTLS("wrong", adminv1.Starttls_STARTTLS_SMTP, d.addresses[1])
	g.apply(wrong, listener("wrong", protocolTCP, "wrong"))
	if got, _ := io.ReadAll(dial(t, g.address("wrong"))); len(got) > 0 {
		t.Errorf("the client of the wrong protocol got %q", got)
	}
	if r := g.probe("wrong"); r.GetReason() != adminv1.Reason_REASON_STARTTLS_REFUSED || !strings.Contains(r.GetExplanation(), "as its greeting, which is not SMTP") {
		t.Errorf("the probe of the wrong protocol: %v", r)
	}

	// These clients start TLS themselves.
	front := map[string]string{}
	g.apply(certificate("server", a.server))
	for _, s := range dovecotServices {
		g.apply(startsTLSListener("front-"+s.name, s.protocol, s.name))
		_, front[s.name], _ = net.SplitHostPort(g.address("front-" + s.name))
	}
	root := writeFile(t, filepath.Join(shortDir(t), "ca.pem"), a.ca.RootPEM())
	script := writeFile(t, filepath.Join(shortDir(t), "clients.py"), []byte(`
import imaplib, poplib, smtplib, ssl, sys
root, imap, pop3, lmtp = sys.argv[1:]
tls = ssl.create_default_context(cafile=root)
c = smtplib.LMTP("127.0.0.1", int(lmtp)); c.starttls(context=tls)
print("lmtp", c.sendmail("a@example.com", ["carol@example.com"], "Subject: over TLS\r\n\r\nhello\r\n")); c.quit()
c = imaplib.IMAP4("127.0.0.1", int(imap))
try: c.login("carol@example.com", "secret"); print("logged in before TLS")
except imaplib.IMAP4.error as e: print("denied:", e)
c.starttls(tls); c.login("carol@example.com", "secret"); print("imap", c.select(), c.capability()); c.logout()
c = poplib.POP3("127.0.0.1", int(pop3)); c.stls(tls); c.user("carol@example.com"); c.pass_("secret"); print("pop3", c.retr(1)[1][-1]); c.quit()
`))
	r := command(t, need(t, "python3"), script, root, front["imap"], front["pop3"], front["lmtp"])
	for _, want := range []string{"lmtp {}", "denied: ", "PRIVACYREQUIRED", "imap ('OK', [b'1'])", "pop3 b'hello'"} {
		if r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("Python's clients print no %q: %v", want, r)
		}
	}
	openssl := need(t, "openssl")
	for service, c := range map[string]struct{ say, want string }{
		"imap": {"a LOGIN carol@example.com secret\nb LOGOUT\n", "b OK"}, "pop3": {"USER carol@example.com\nPASS secret\nSTAT\nQUIT\n", "+OK 1 "},
		"lmtp": {"LHLO x\nquit\n", "250-"}, "sieve": {"AUTHENTICATE \"PLAIN\" \"AGNhcm9sQGV4YW1wbGUuY29tAHNlY3JldA==\"\nLOGOUT\n", "OK \"Logged in."},
	} {
		if r := commandInput(t, c.say, openssl, "s_client", "-quiet", "-crlf", "-connect", "127.0.0.1:"+front[service], "-starttls", service, "-CAfile", root, "-verify_return_error"); !strings.Contains(r.stdout, c.want) {
			t.Errorf("openssl s_client to %s: %v", service, r)
		}
	}
}
