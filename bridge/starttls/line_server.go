package starttls

import "strings"

// A lineServer is the server's part of a protocol of lines. It answers a client until
// the client requests TLS.
type lineServer struct {
	protocol string
	optional bool
	greeting string
	quit     string // the command that ends a session

	// answer returns the answer to a command, and the meaning of the command.
	answer func(line string) (string, meaning)

	lines    lines
	commands int
	hello    string // the client's latest introduction, with its line end
	result   Opening
}

// A meaning is the meaning of a client's command before TLS.
type meaning int

const (
	answered meaning = iota // the answer is complete
	asksTLS
	quits
	needsServer // the session begins in plaintext if that is allowed; otherwise the answer refuses it
)

// maxCommands bounds the commands before a client requests TLS.
const maxCommands = 32

func (s *lineServer) start() []byte    { return []byte(s.greeting) }
func (s *lineServer) waiting() string  { return "the client: a request for TLS in " + s.protocol }
func (s *lineServer) opening() Opening { return s.result }

func (s *lineServer) feed(in []byte) (out []byte, done bool, err error) {
	if s.lines.total == 0 && in[0] == recordHandshake {
		return nil, false, refused("the client began with TLS; it must ask for TLS in %s first", s.protocol)
	}
	s.lines.fromClient = true
	s.lines.add(in)
	for {
		unread := s.lines.rest
		line, ok, err := s.lines.next()
		if err != nil || !ok {
			return out, false, err
		}
		if s.commands++; s.commands > maxCommands {
			return out, false, refused("the client sent more than %d commands and did not request TLS", maxCommands)
		}
		answer, means := s.answer(line)
		switch {
		case means == asksTLS && len(s.lines.rest) > 0:
			return out, false, injectedPlaintext(len(s.lines.rest))
		case means == asksTLS:
			s.result = Opening{Next: TLS}
			return append(out, answer...), true, nil
		case means == quits:
			return append(out, answer...), false, endedBeforeTLS(s.quit)
		case means == needsServer && s.optional:
			s.result = Opening{Next: Plaintext, Read: unread, hello: s.hello}
			return out, true, nil
		}
		out = append(out, answer...)
	}
}

// command splits a line into the command, in upper case, and its arguments.
func command(line string) (verb, arguments string) {
	verb, arguments, _ = strings.Cut(line, " ")
	return strings.ToUpper(verb), strings.TrimSpace(arguments)
}

// isWord reports whether s is a word of printable ASCII that an answer may
// repeat.
func isWord(s string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
