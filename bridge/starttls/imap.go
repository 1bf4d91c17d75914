package starttls

import (
	"slices"
	"strings"
)

// IMAP (RFC 9051, section 6.2.1). The server's lines begin with "*" or with the
// tag of a command.

// imapTagged returns a step that waits for the tagged answer to a command.
// Untagged reads the other lines.
func imapTagged(tag, command, answer string, untagged func(line string), more func() error) step {
	return step{tag + " " + command + "\r\n", answer, func(line string) (bool, error) {
		mark, rest, _ := strings.Cut(line, " ")
		status, _, _ := strings.Cut(rest, " ")
		switch {
		case mark == "*" && strings.EqualFold(status, "BYE"):
			return false, refused("the server ended the session: it sent %s", quote(line))
		case mark == "*":
			untagged(rest)
			return false, nil
		case mark != tag:
			return false, refused("the server sent %s as %s, which is not IMAP", quote(line), answer)
		case !strings.EqualFold(status, "OK"):
			return false, refused("the server refused: it sent %s as %s", quote(line), answer)
		case more == nil:
			return true, nil
		}
		return true, more()
	}}
}

// imapCapabilities collects the words of a CAPABILITY line.
func imapCapabilities(words *[]string) func(string) {
	return func(line string) {
		if fields := strings.Fields(line); len(fields) > 0 && strings.EqualFold(fields[0], "CAPABILITY") {
			*words = append(*words, fields[1:]...)
		}
	}
}

// imapGreeting reads the greeting. A server that begins with an authenticated
// session can no longer start TLS.
func imapGreeting(line string) (bool, error) {
	mark, rest, _ := strings.Cut(line, " ")
	status, _, _ := strings.Cut(rest, " ")
	switch {
	case mark == "*" && strings.EqualFold(status, "OK"):
		return true, nil
	case mark == "*" && strings.EqualFold(status, "PREAUTH"):
		return false, refused("the server's greeting begins an authenticated session, in which TLS cannot start: %s", quote(line))
	case mark == "*" && strings.EqualFold(status, "BYE"):
		return false, refused("the server refused: it sent %s as its greeting", quote(line))
	}
	return false, refused("the server sent %s as its greeting, which is not IMAP", quote(line))
}

func imapClient() dialect {
	var words []string
	return &script{steps: []step{
		{"", "its greeting", imapGreeting},
		imapTagged("d1", "CAPABILITY", "its answer to CAPABILITY", imapCapabilities(&words), func() error {
			return offers(words, "STARTTLS", "CAPABILITY")
		}),
		imapTagged("d2", "STARTTLS", "its answer to STARTTLS", func(string) {}, nil),
	}}
}

// imapSecured requests the capabilities again, which differ over TLS.
func imapSecured() *script {
	var words []string
	return &script{
		steps: []step{imapTagged("d3", "CAPABILITY", "its answer to CAPABILITY over TLS", imapCapabilities(&words), nil)},
		greeting: func() []byte {
			list := strings.Join(printableWords(words), " ")
			if list == "" {
				return []byte("* OK ready\r\n")
			}
			return []byte("* OK [CAPABILITY " + list + "] ready\r\n")
		},
	}
}

// offers returns an error unless the words contain the capability.
func offers(words []string, capability, command string) error {
	if slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, capability) }) {
		return nil
	}
	return refused("the server does not offer %s in its answer to %s: it offers %s", capability, command, quote(strings.Join(words, " ")))
}

// printableWords returns the words that are allowed in a greeting. It drops
// STARTTLS, because the connection already uses TLS.
func printableWords(words []string) (out []string) {
	for _, w := range words {
		if !strings.ContainsFunc(w, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ']' }) && !strings.EqualFold(w, "STARTTLS") {
			out = append(out, w)
		}
	}
	return out
}

// imapServer answers a client until it requests TLS. Unless TLS is optional, clients
// must not log in before.
func imapServer(optional bool) acceptor {
	capabilities := "CAPABILITY IMAP4rev1 STARTTLS"
	if !optional {
		capabilities += " LOGINDISABLED"
	}
	s := &lineServer{protocol: "IMAP", optional: optional, greeting: "* OK [" + capabilities + "] ready\r\n", quit: "LOGOUT"}
	s.answer = func(line string) (string, meaning) {
		tag, rest, _ := strings.Cut(line, " ")
		if !isWord(tag, 64) || strings.ContainsAny(tag, `+(){}%*"\`) {
			return "* BAD a command begins with a tag\r\n", answered
		}
		verb, arguments := command(rest)
		switch {
		case verb == "CAPABILITY":
			return "* " + capabilities + "\r\n" + tag + " OK done\r\n", answered
		case verb == "NOOP":
			return tag + " OK done\r\n", answered
		case verb == "STARTTLS" && arguments != "":
			return tag + " BAD STARTTLS takes no arguments\r\n", answered
		case verb == "STARTTLS":
			return tag + " OK begin TLS negotiation\r\n", asksTLS
		case verb == "LOGOUT":
			return "* BYE\r\n" + tag + " OK done\r\n", quits
		}
		return tag + " NO [PRIVACYREQUIRED] TLS is required: send STARTTLS first\r\n", needsServer
	}
	return s
}

func imapJoin(Opening) *script {
	return &script{steps: []step{{"", "its greeting", imapGreeting}}}
}
