package starttls

import "strings"

// A mailProtocol is SMTP (RFC 5321, RFC 3207) or LMTP (RFC 2033), which differ in
// one word.
type mailProtocol struct{ name, hello, banner string }

var (
	smtp = mailProtocol{"SMTP", "EHLO", "ESMTP"}
	lmtp = mailProtocol{"LMTP", "LHLO", "LMTP"}
)

func (m mailProtocol) spec() spec { return spec{m.name, m.client, m.secured, m.server, m.join} }

// mailHost is the name under which the gateway introduces itself to servers, before and
// after the upgrade, and to clients before it. Afterward the client introduces itself.
const mailHost = "localhost"

// A mailReply reads a reply of SMTP: lines with one code, the last without a
// hyphen.
type mailReply struct {
	code string
	text []string
}

// line reads one line. It returns whether it is the last.
func (r *mailReply) line(s string) (last, ok bool) {
	if len(s) < 3 || strings.Trim(s[:3], "0123456789") != "" || r.code != "" && s[:3] != r.code {
		return false, false
	}
	r.code = s[:3]
	if len(s) == 3 {
		r.text = append(r.text, "")
		return true, true
	}
	r.text = append(r.text, s[4:])
	return s[3] == ' ', s[3] == ' ' || s[3] == '-'
}

// step returns a step that needs a code. More checks the whole reply.
func (m mailProtocol) step(command, answer, code string, more func(*mailReply) error) step {
	var r mailReply
	return step{command, answer, func(line string) (bool, error) {
		last, ok := r.line(line)
		switch {
		case !ok:
			return false, refused("the server sent %s as %s, which is not %s", quote(line), answer, m.name)
		case r.code != code:
			return false, refused("the server refused: it sent %s as %s", quote(line), answer)
		case !last:
			return false, nil
		case more == nil:
			return true, nil
		}
		return true, more(&r)
	}}
}

func (m mailProtocol) greeted() step { return m.step("", "its greeting", "220", nil) }

// client requests TLS from a server.
func (m mailProtocol) client() dialect {
	return &script{steps: []step{
		m.greeted(),
		m.step(m.hello+" "+mailHost+"\r\n", "its answer to "+m.hello, "250", func(r *mailReply) error {
			for _, s := range r.text[1:] {
				if keyword, _, _ := strings.Cut(s, " "); strings.EqualFold(keyword, "STARTTLS") {
					return nil
				}
			}
			return refused("the server does not offer STARTTLS in its answer to %s: it offers %s", m.hello, quote(strings.Join(r.text[1:], ", ")))
		}),
		m.step("STARTTLS\r\n", "its answer to STARTTLS", "220", nil),
	}}
}

// secured introduces the gateway again, over TLS. The server's name in the client's
// greeting is thus authentic.
func (m mailProtocol) secured() *script {
	name := ""
	return &script{
		steps: []step{m.step(m.hello+" "+mailHost+"\r\n", "its answer to "+m.hello+" over TLS", "250", func(r *mailReply) error {
			name, _, _ = strings.Cut(r.text[0], " ")
			return nil
		})},
		greeting: func() []byte { return []byte("220 " + mailName(name) + " " + m.banner + "\r\n") },
	}
}

// mailName returns the server's name, or mailHost if it is not valid.
func mailName(s string) string {
	if !isWord(s, 255) {
		return mailHost
	}
	return s
}

// server answers a client until it requests TLS. It offers no other extension,
// because the upstream is not known yet.
func (m mailProtocol) server(optional bool) acceptor {
	s := &lineServer{protocol: m.name, optional: optional, greeting: "220 " + mailHost + " " + m.banner + "\r\n", quit: "QUIT"}
	s.answer = func(line string) (string, meaning) {
		verb, arguments := command(line)
		switch {
		case verb == m.hello || verb == "HELO" && m == smtp:
			name, _, _ := strings.Cut(arguments, " ")
			if !isWord(name, 255) {
				return "501 5.5.4 " + verb + " needs the client's name\r\n", answered
			}
			s.hello = verb + " " + name + "\r\n"
			if verb == "HELO" {
				return "250 " + mailHost + "\r\n", answered
			}
			return "250-" + mailHost + "\r\n250 STARTTLS\r\n", answered
		case verb == "STARTTLS" && arguments != "":
			return "501 5.5.4 STARTTLS takes no arguments\r\n", answered
		case verb == "STARTTLS":
			return "220 2.0.0 Ready to start TLS\r\n", asksTLS
		case verb == "NOOP", verb == "RSET":
			return "250 2.0.0 OK\r\n", answered
		case verb == "QUIT":
			return "221 2.0.0 Bye\r\n", quits
		}
		return "530 5.7.0 Must issue a STARTTLS command first\r\n", needsServer
	}
	return s
}

// join reads the server's greeting. A client that continues in plaintext does not
// introduce itself again.
func (m mailProtocol) join(o Opening) *script {
	s := &script{steps: []step{m.greeted()}}
	if o.hello != "" {
		s.steps = append(s.steps, m.step(o.hello, "its answer to the client's introduction", "250", nil))
	}
	return s
}
