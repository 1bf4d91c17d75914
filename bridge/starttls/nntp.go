package starttls

import (
	"slices"
	"strings"
)

// NNTP (RFC 3977, RFC 4642).

// nntpStatus returns a check that accepts the given codes.
func nntpStatus(codes ...string) statusCheck {
	return func(line, answer string) error {
		code, _, _ := strings.Cut(line, " ")
		switch {
		case slices.Contains(codes, code):
			return nil
		case len(code) == 3 && strings.Trim(code, "0123456789") == "":
			return refused("the server refused: it sent %s as %s", quote(line), answer)
		}
		return refused("the server sent %s as %s, which is not NNTP", quote(line), answer)
	}
}

func nntpGreeted() step { return statusLine("", "its greeting", nntpStatus("200", "201")) }

func nntpCapabilities(answer string, more func(names []string) error) step {
	return dottedList("CAPABILITIES\r\n", answer, nntpStatus("101"), more)
}

func nntpClient() dialect {
	return &script{steps: []step{
		nntpGreeted(),
		nntpCapabilities("its answer to CAPABILITIES", func(names []string) error { return offers(names, "STARTTLS", "CAPABILITIES") }),
		statusLine("STARTTLS\r\n", "its answer to STARTTLS", nntpStatus("382")),
	}}
}

// nntpSecured requests the capabilities over TLS, which also say whether
// clients may post.
func nntpSecured() *script {
	greeting := "201 ready, posting prohibited\r\n"
	return &script{
		steps: []step{nntpCapabilities("its answer to CAPABILITIES over TLS", func(names []string) error {
			if offers(names, "POST", "CAPABILITIES") == nil {
				greeting = "200 ready, posting allowed\r\n"
			}
			return nil
		})},
		greeting: func() []byte { return []byte(greeting) },
	}
}

// nntpServer answers a client until it asks for TLS. The greeting allows posting: the
// server itself refuses articles that it does not want.
func nntpServer(optional bool) acceptor {
	s := &lineServer{protocol: "NNTP", optional: optional, greeting: "200 ready\r\n", quit: "QUIT"}
	s.answer = func(line string) (string, meaning) {
		switch verb, arguments := command(line); {
		case verb == "CAPABILITIES":
			return "101 capabilities\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n", answered
		case verb == "STARTTLS" && arguments != "":
			return "501 STARTTLS takes no arguments\r\n", answered
		case verb == "STARTTLS":
			return "382 continue with TLS negotiation\r\n", asksTLS
		case verb == "QUIT":
			return "205 bye\r\n", quits
		}
		return "483 TLS is required: send STARTTLS first\r\n", needsServer
	}
	return s
}

func nntpJoin(Opening) *script {
	return &script{steps: []step{nntpGreeted()}}
}
