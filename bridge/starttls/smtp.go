package starttls

import "strings"

// SMTP (RFC 5321, RFC 3207) and LMTP (RFC 2033), which differ in a word.

// mailHello is the name under which the gateway introduces itself, before and
// after the upgrade. The client introduces itself later.
const mailHello = "localhost"

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

// mailStep returns a step that needs a code. More checks the whole reply.
func mailStep(protocol, command, answer, code string, more func(*mailReply) error) step {
	var r mailReply
	return step{command, answer, func(line string) (bool, error) {
		last, ok := r.line(line)
		switch {
		case !ok:
			return false, refused("the server sent %s as %s, which is not %s", quote(line), answer, protocol)
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

// mailClient asks a server for TLS. Hello is EHLO or LHLO.
func mailClient(protocol, hello string) *script {
	return &script{steps: []step{
		mailStep(protocol, "", "its greeting", "220", nil),
		mailStep(protocol, hello+" "+mailHello+"\r\n", "its answer to "+hello, "250", func(r *mailReply) error {
			for _, s := range r.text[1:] {
				if keyword, _, _ := strings.Cut(s, " "); strings.EqualFold(keyword, "STARTTLS") {
					return nil
				}
			}
			return refused("the server does not offer STARTTLS in its answer to %s: it offers %s", hello, quote(strings.Join(r.text[1:], ", ")))
		}),
		mailStep(protocol, "STARTTLS\r\n", "its answer to STARTTLS", "220", nil),
	}}
}

// mailSecured introduces the gateway again, over TLS. The server's name in the
// client's greeting is thus authentic.
func mailSecured(protocol, hello, banner string) *script {
	name := ""
	return &script{
		steps: []step{mailStep(protocol, hello+" "+mailHello+"\r\n", "its answer to "+hello+" over TLS", "250", func(r *mailReply) error {
			name, _, _ = strings.Cut(r.text[0], " ")
			return nil
		})},
		greeting: func() []byte { return []byte("220 " + mailName(name) + " " + banner + "\r\n") },
	}
}

// mailName returns the server's name, or another if it is not valid.
func mailName(s string) string {
	if s == "" || len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return mailHello
	}
	return s
}
