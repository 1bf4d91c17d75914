package starttls

import "strings"

// NNTP (RFC 3977, RFC 4642).

// nntpCode returns a step that needs one of some codes.
func nntpCode(command, answer string, codes ...string) step {
	return step{command, answer, func(line string) (bool, error) { return true, nntpStatus(line, answer, codes...) }}
}

func nntpStatus(line, answer string, codes ...string) error {
	code, _, _ := strings.Cut(line, " ")
	for _, c := range codes {
		if code == c {
			return nil
		}
	}
	if len(code) == 3 && strings.Trim(code, "0123456789") == "" {
		return refused("the server refused: it sent %s as %s", quote(line), answer)
	}
	return refused("the server sent %s as %s, which is not NNTP", quote(line), answer)
}

// nntpCapabilities returns a step that asks for the capabilities, a list that
// ends with a dot. More checks them.
func nntpCapabilities(answer string, more func(words []string) error) step {
	begun := false
	var words []string
	return step{"CAPABILITIES\r\n", answer, func(line string) (bool, error) {
		if !begun {
			begun = true
			return false, nntpStatus(line, answer, "101")
		}
		if line != "." {
			word, _, _ := strings.Cut(line, " ")
			words = append(words, word)
			return false, nil
		}
		return true, more(words)
	}}
}

func nntpClient() *script {
	return &script{steps: []step{
		nntpCode("", "its greeting", "200", "201"),
		nntpCapabilities("its answer to CAPABILITIES", func(words []string) error { return offers(words, "STARTTLS", "CAPABILITIES") }),
		nntpCode("STARTTLS\r\n", "its answer to STARTTLS", "382"),
	}}
}

// nntpSecured asks for the capabilities over TLS, which also say whether
// clients may post.
func nntpSecured() *script {
	greeting := "201 ready, posting prohibited\r\n"
	return &script{
		steps: []step{nntpCapabilities("its answer to CAPABILITIES over TLS", func(words []string) error {
			if offers(words, "POST", "CAPABILITIES") == nil {
				greeting = "200 ready, posting allowed\r\n"
			}
			return nil
		})},
		greeting: func() []byte { return []byte(greeting) },
	}
}
