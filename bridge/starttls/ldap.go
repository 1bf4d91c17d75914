package starttls

// LDAP's StartTLS operation (RFC 4511, section 4.14).

const (
	ldapStartTLS = "1.3.6.1.4.1.1466.20037"
	maxLDAP      = 8 << 10 // maximum size of a response
)

// ldapClient requests TLS from a server. In LDAP, the client speaks first.
type ldapClient struct{ received []byte }

func newLDAPClient() dialect { return new(ldapClient) }

// start returns an ExtendedRequest with the message ID 1. The gateway's client
// may use the ID again later, because this operation has then ended.
func (c *ldapClient) start() []byte {
	return []byte(ber(0x30, ber(0x02, "\x01")+ber(0x77, ber(0x80, ldapStartTLS))))
}

func (c *ldapClient) waiting() string { return "the server: its answer to StartTLS" }

func (c *ldapClient) feed(in []byte) ([]byte, bool, error) {
	c.received = append(c.received, in[:min(len(in), maxLDAP+1-len(c.received))]...)
	_, body, rest, state := berElement(c.received)
	switch {
	case c.received[0] != 0x30 || state == berInvalid:
		return nil, false, refused("the server sent %s as its answer to StartTLS, which is not LDAP", quote(c.received))
	case state == berShort && len(c.received) > maxLDAP:
		return nil, false, refused("the server's answer to StartTLS has more than %d bytes", maxLDAP)
	case state == berShort:
		return nil, false, nil
	}
	_, id, op, ok := berNext(body, 0x02)
	tag, response, _, state := berElement(op)
	if !ok || state != berWhole || tag != 0x78 {
		return nil, false, refused("the server sent %s as its answer to StartTLS, which is not an extended response of LDAP", quote(c.received))
	}
	_, code, response, ok := berNext(response, 0x0a)
	_, _, response, ok2 := berNext(response, 0x04) // matchedDN
	_, text, _, ok3 := berNext(response, 0x04)     // diagnosticMessage
	switch {
	case !ok || !ok2 || !ok3 || len(code) != 1 || len(id) != 1:
		return nil, false, refused("the server sent %s as its answer to StartTLS, which is not an extended response of LDAP", quote(c.received))
	case id[0] != 1:
		return nil, false, refused("the server ended the session: result %d, %s", code[0], quote(text))
	case code[0] != 0:
		return nil, false, refused("the server refused StartTLS: result %d, %s", code[0], quote(text))
	case len(rest) > 0:
		return nil, false, injected("its answer to StartTLS", rest)
	}
	return nil, true, nil
}

// ber returns an element. Its content must be shorter than 128 bytes.
func ber(tag byte, content string) string { return string([]byte{tag, byte(len(content))}) + content }

// berNext returns the content of the element that b begins with, and the rest.
func berNext(b []byte, want byte) (tag byte, content, rest []byte, ok bool) {
	tag, content, rest, state := berElement(b)
	return tag, content, rest, state == berWhole && tag == want
}

type berState int

const (
	berShort   berState = iota // more bytes are needed
	berInvalid                 // not an element, or longer than any expected one
	berWhole
)

// berElement cuts the element that b begins with. Lengths may be longer than
// necessary, as Active Directory writes them.
func berElement(b []byte) (tag byte, content, rest []byte, state berState) {
	if len(b) < 2 {
		return 0, nil, nil, berShort
	}
	tag, n, at := b[0], int(b[1]), 2
	if n > 0x7f {
		octets := n & 0x7f
		if octets == 0 || octets > 4 {
			return tag, nil, nil, berInvalid
		}
		if len(b) < 2+octets {
			return tag, nil, nil, berShort
		}
		n = 0
		for _, o := range b[2 : 2+octets] {
			n = n<<8 | int(o)
		}
		at += octets
	}
	switch {
	case n > maxLDAP:
		return tag, nil, nil, berInvalid
	case len(b) < at+n:
		return tag, nil, nil, berShort
	}
	return tag, b[at : at+n], b[at+n:], berWhole
}
