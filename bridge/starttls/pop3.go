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
