package starttls

import "strings"

// POP3 (RFC 1939, RFC 2449, RFC 2595).

// pop3Status needs +OK.
func pop3Status(line, answer string) error {
	status, _, _ := strings.Cut(line, " ")
	switch status {
	case "+OK":
		return nil
	case "-ERR":
		return refused("the server refused: it sent %s as %s", quote(line), answer)
	}
	return refused("the server sent %s as %s, which is not POP3", quote(line), answer)
}

func pop3Capabilities(answer string, more func(names []string) error) step {
	return dottedList("CAPA\r\n", answer, pop3Status, more)
}

func pop3Client() dialect {
	return &script{steps: []step{
		statusLine("", "its greeting", pop3Status),
		pop3Capabilities("its answer to CAPA", func(names []string) error { return offers(names, "STLS", "CAPA") }),
		statusLine("STLS\r\n", "its answer to STLS", pop3Status),
	}}
}

// pop3Secured checks the connection over TLS. The greeting has no timestamp,
// so that clients do not use APOP, whose challenge would not be authentic.
func pop3Secured() *script {
	return &script{
		steps:    []step{pop3Capabilities("its answer to CAPA over TLS", nil)},
		greeting: func() []byte { return []byte("+OK ready\r\n") },
	}
}

// pop3Server answers a client until it asks for TLS.
func pop3Server(optional bool) acceptor {
	capabilities := "+OK\r\nSTLS\r\n.\r\n"
	if optional {
		capabilities = "+OK\r\nSTLS\r\nUSER\r\n.\r\n"
	}
	s := &lineServer{protocol: "POP3", optional: optional, greeting: "+OK ready\r\n", quit: "QUIT"}
	s.answer = func(line string) (string, meaning) {
		switch verb, arguments := command(line); {
		case verb == "CAPA":
			return capabilities, answered
		case verb == "STLS" && arguments != "":
			return "-ERR STLS takes no arguments\r\n", answered
		case verb == "STLS":
			return "+OK begin TLS negotiation\r\n", asksTLS
		case verb == "QUIT":
			return "+OK\r\n", quits
		}
		return "-ERR TLS is required: send STLS first\r\n", needsServer
	}
	return s
}

func pop3Join(Opening) *script {
	return &script{steps: []step{statusLine("", "its greeting", pop3Status)}}
}
