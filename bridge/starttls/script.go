package starttls

import "strings"

// A step of a script sends a command and reads the answer.
type step struct {
	command string // with its line end; "": the server speaks first
	answer  string // for errors: "its greeting"

	// read consumes one line of the answer. It returns whether the answer is
	// complete, or an error if the answer is not the needed one.
	read func(line string) (complete bool, err error)
}

// A statusCheck checks the first line of an answer. It returns an error unless the
// line is the needed one.
type statusCheck func(line, answer string) error

// statusLine returns a step whose answer is one line.
func statusLine(command, answer string, check statusCheck) step {
	return step{command, answer, func(line string) (bool, error) { return true, check(line, answer) }}
}

// dottedList returns a step that requests the capabilities. The answer is a
// status, a line for each capability, and a dot. More checks the capabilities'
// names; nil accepts any.
func dottedList(command, answer string, check statusCheck, more func(names []string) error) step {
	begun := false
	var names []string
	return step{command, answer, func(line string) (bool, error) {
		switch {
		case !begun:
			begun = true
			return false, check(line, answer)
		case line != ".":
			name, _, _ := strings.Cut(line, " ")
			names = append(names, name)
			return false, nil
		case more == nil:
			return true, nil
		}
		return true, more(names)
	}}
}

// A script is a dialect of lines: steps in order.
type script struct {
	steps []step
	at    int
	lines lines

	// greeting returns the bytes that a client expects first from the server. It
	// is called once the script is done. It is nil in the exchange before TLS.
	greeting func() []byte
}

func (s *script) start() []byte   { return []byte(s.steps[0].command) }
func (s *script) waiting() string { return "the server: " + s.steps[min(s.at, len(s.steps)-1)].answer }

func (s *script) feed(in []byte) ([]byte, bool, error) {
	s.lines.add(in)
	for {
		line, ok, err := s.lines.next()
		if err != nil || !ok {
			return nil, false, err
		}
		now := &s.steps[s.at]
		complete, err := now.read(line)
		switch {
		case err != nil:
			return nil, false, err
		case !complete:
			continue
		case len(s.lines.rest) > 0:
			// No bytes may follow an answer before the next command was sent.
			return nil, false, injected(now.answer, s.lines.rest)
		}
		if s.at++; s.at == len(s.steps) {
			return nil, true, nil
		}
		return []byte(s.steps[s.at].command), false, nil
	}
}
