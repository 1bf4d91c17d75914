package starttls

// A Protocol is a protocol that begins in plaintext. The zero Protocol begins
// with TLS.
type Protocol int

// The protocols.
const (
	None Protocol = iota
	Postgres
	SMTP
	LMTP
	IMAP
	POP3
	LDAP
	NNTP
	Sieve
)

// A spec is a protocol's name and dialects.
type spec struct {
	name   string
	client func() dialect // asks a server for TLS

	// secured is the exchange with the server over TLS, after which the client is
	// greeted. It is nil if clients speak first.
	secured func() *script
}

var specs = map[Protocol]spec{
	Postgres: {"PostgreSQL", func() dialect { return new(postgresClient) }, nil},
	SMTP:     {"SMTP", func() dialect { return mailClient("SMTP", "EHLO") }, func() *script { return mailSecured("SMTP", "EHLO", "ESMTP") }},
	LMTP:     {"LMTP", func() dialect { return mailClient("LMTP", "LHLO") }, func() *script { return mailSecured("LMTP", "LHLO", "LMTP") }},
	IMAP:     {"IMAP", imapClient, imapSecured},
	POP3:     {"POP3", pop3Client, pop3Secured},
	LDAP:     {"LDAP", func() dialect { return new(ldapClient) }, nil},
	NNTP:     {"NNTP", nntpClient, nntpSecured},
	Sieve:    {"ManageSieve", sieveClient, sieveSecured},
}

// String returns the protocol's usual name.
func (p Protocol) String() string { return specs[p].name }

// ServerSpeaksFirst reports whether clients wait for the server's greeting, so
// that a connection belongs to one client from the start.
func (p Protocol) ServerSpeaksFirst() bool { return specs[p].secured != nil }
