package starttls

import "strings"

// ManageSieve (RFC 5804).

// sieveCapabilities returns a step that reads the list of capabilities that the server
// sends without a request: a quoted line for each, then OK. It calls each for every such
// line, and done at the end.
func sieveCapabilities(answer string, each func(line string), done func() error) step {
	return step{"", answer, func(line string) (bool, error) {
		if strings.HasPrefix(line, `"`) {
			each(line)
			return false, nil
		}
		if err := sieveStatus(line, answer); err != nil {
			return false, err
		}
		return true, done()
	}}
}

func sieveStatus(line, answer string) error {
	status, _, _ := strings.Cut(line, " ")
	switch strings.ToUpper(status) {
	case "OK":
		return nil
	case "NO", "BYE":
		return refused("the server refused: it sent %s as %s", quote(line), answer)
	}
	return refused("the server sent %s as %s, which is not ManageSieve", quote(line), answer)
}

func sieveClient() dialect {
	var words []string
	collect := func(line string) {
		name, _, _ := strings.Cut(line[1:], `"`)
		words = append(words, name)
	}
	return &script{steps: []step{
		sieveCapabilities("its greeting", collect, func() error { return offers(words, "STARTTLS", "its greeting") }),
		statusLine("STARTTLS\r\n", "its answer to STARTTLS", sieveStatus),
	}}
}

// sieveSecured reads the capabilities that the server sends again over TLS, and
// forwards them to the client.
func sieveSecured() *script { return sieveForward("its capabilities over TLS") }

// sieveForward reads capabilities for the client.
func sieveForward(answer string) *script {
	var list strings.Builder
	return &script{
		steps: []step{sieveCapabilities(answer, func(line string) {
			if !strings.EqualFold(line, `"STARTTLS"`) {
				list.WriteString(line + "\r\n")
			}
		}, func() error { return nil })},
		greeting: func() []byte { return []byte(list.String() + "OK\r\n") },
	}
}

// sieveServer answers a client until it requests TLS. Unless TLS is optional, clients
// must not authenticate before.
func sieveServer(optional bool) acceptor {
	mechanisms := ""
	if optional {
		mechanisms = "PLAIN"
	}
	capabilities := "\"IMPLEMENTATION\" \"Drawbridge\"\r\n\"SASL\" \"" + mechanisms + "\"\r\n\"SIEVE\" \"\"\r\n\"STARTTLS\"\r\n\"VERSION\" \"1.0\"\r\nOK\r\n"
	s := &lineServer{protocol: "ManageSieve", optional: optional, greeting: capabilities, quit: "LOGOUT"}
	s.answer = func(line string) (string, meaning) {
		switch verb, arguments := command(line); {
		case verb == "CAPABILITY":
			return capabilities, answered
		case verb == "NOOP" && arguments == "":
			return "OK\r\n", answered
		case verb == "STARTTLS" && arguments != "":
			return "NO \"STARTTLS takes no arguments\"\r\n", answered
		case verb == "STARTTLS":
			return "OK \"begin TLS negotiation\"\r\n", asksTLS
		case verb == "LOGOUT":
			return "OK\r\n", quits
		}
		return "NO (ENCRYPT-NEEDED) \"TLS is required: send STARTTLS first\"\r\n", needsServer
	}
	return s
}

// sieveJoin reads the server's capabilities. A client expects them after its TLS
// handshake.
func sieveJoin(Opening) *script { return sieveForward("its greeting") }
