package starttls

// ldapServer answers a client until it sends StartTLS. Unless TLS is optional, every
// other operation gets the result confidentialityRequired.
type ldapServer struct {
	optional   bool
	received   []byte // bytes not answered yet
	operations int
	result     Opening
}

func newLDAPServer(optional bool) acceptor { return &ldapServer{optional: optional} }

func (s *ldapServer) start() []byte    { return nil }
func (s *ldapServer) waiting() string  { return "the client: StartTLS" }
func (s *ldapServer) opening() Opening { return s.result }

func (s *ldapServer) feed(in []byte) (out []byte, done bool, err error) {
	s.received = append(s.received, in...)
	for len(s.received) > 0 {
		_, body, rest, state := berElement(s.received)
		switch {
		case s.received[0] != 0x30 || state == berInvalid: // berElement bounds the length
			return out, false, wrongProtocol(s.received, "LDAP")
		case state == berShort:
			return out, false, nil
		}
		_, id, operation, ok := berNext(body, 0x02)
		if !ok || len(id) == 0 || len(id) > 4 || len(operation) == 0 {
			return out, false, wrongProtocol(s.received, "LDAP")
		}
		if s.operations++; s.operations > maxCommands {
			return out, false, refused("the client sent more than %d operations and did not request TLS", maxCommands)
		}
		starts := ldapIsStartTLS(operation)
		switch {
		case starts && len(rest) > 0:
			return out, false, injectedPlaintext(len(rest))
		case starts:
			s.result = Opening{Next: TLS}
			return append(out, ldapResult(id, 0x78, ldapSuccess, "", ldapStartTLS)...), true, nil
		case s.optional:
			s.result = Opening{Next: Plaintext, Read: s.received}
			return out, true, nil
		case operation[0] == ldapUnbind:
			return out, false, endedBeforeTLS("an unbind request")
		case ldapResponses[operation[0]] != 0:
			out = append(out, ldapResult(id, ldapResponses[operation[0]], ldapConfidentialityRequired, "TLS is required: send StartTLS first", "")...)
		case operation[0] != ldapAbandon:
			return out, false, wrongProtocol(s.received, "LDAP")
		}
		s.received = rest
	}
	return out, false, nil
}

const (
	ldapUnbind  = 0x42
	ldapAbandon = 0x50

	ldapSuccess                 = 0
	ldapConfidentialityRequired = 13
)

// ldapResponses are the responses to each operation, by their tags.
var ldapResponses = map[byte]byte{
	0x60: 0x61, // bind
	0x63: 0x65, // search
	0x66: 0x67, // modify
	0x68: 0x69, // add
	0x4a: 0x6b, // delete
	0x6c: 0x6d, // modify DN
	0x6e: 0x6f, // compare
	0x77: 0x78, // extended
}

// ldapIsStartTLS reports whether an operation is StartTLS.
func ldapIsStartTLS(operation []byte) bool {
	_, request, _, extended := berNext(operation, 0x77)
	_, name, _, named := berNext(request, 0x80)
	return extended && named && string(name) == ldapStartTLS
}

// ldapResult returns a response to the message id. Name is the name of an
// extended operation.
func ldapResult(id []byte, response, code byte, text, name string) []byte {
	result := ber(0x0a, string([]byte{code})) + ber(0x04, "") + ber(0x04, text)
	if name != "" {
		result += ber(0x8a, name)
	}
	return []byte(ber(0x30, ber(0x02, string(id))+ber(response, result)))
}
