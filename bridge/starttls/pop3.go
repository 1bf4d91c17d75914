package starttls

import "strings"

// POP3 (RFC 1939, RFC 2449, RFC 2595).

// pop3OK returns a step that needs +OK.
func pop3OK(command, answer string) step {
	return step{command, answer, func(line string) (bool, error) { return true, pop3Status(line, answer) }}
}

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

// pop3Capabilities returns a step that asks for the capabilities, a list that
// ends with a dot. More checks them.
func pop3Capabilities(answer string, more func(words []string) error) step {
	begun := false
	var words []string
	return step{"CAPA\r\n", answer, func(line string) (bool, error) {
		switch {
		case !begun:
			begun = true
			return false, pop3Status(line, answer)
		case line != ".":
			word, _, _ := strings.Cut(line, " ")
			words = append(words, word)
			return false, nil
		case more == nil:
			return true, nil
		}
		return true, more(words)
	}}
}

func pop3Client() *script {
	return &script{steps: []step{
		pop3OK("", "its greeting"),
		pop3Capabilities("its answer to CAPA", func(words []string) error { return offers(words, "STLS", "CAPA") }),
		pop3OK("STLS\r\n", "its answer to STLS"),
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
