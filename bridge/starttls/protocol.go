package starttls

// A Protocol is a protocol that begins in plaintext. The zero Protocol begins
// with TLS.
type Protocol int

// The protocols.
const (
	None Protocol = iota
	Postgres
	MySQL
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
	name string

	// client requests TLS from a server. It is nil for MySQL, because upgradeMySQL
	// also exchanges messages with the gateway's client.
	client func() dialect

	// secured is the exchange with the server over TLS, after which the client is
	// greeted. It is nil if clients speak first.
	secured func() *script

	// server answers a client until it requests TLS. It is nil for MySQL, whose clients
	// the upstream greets.
	server func(optional bool) acceptor

	// join is the exchange with the server for a client that server has answered. Its
	// first step reads the server's greeting. Its greeting holds the bytes that a
	// client expects after its TLS handshake. It is nil if clients speak first.
	join func(Opening) *script
}

var specs = map[Protocol]spec{
	Postgres: {"PostgreSQL", newPostgresClient, nil, newPostgresServer, nil},
	MySQL:    {name: "MySQL"},
	SMTP:     smtp.spec(),
	LMTP:     lmtp.spec(),
	IMAP:     {"IMAP", imapClient, imapSecured, imapServer, imapJoin},
	POP3:     {"POP3", pop3Client, pop3Secured, pop3Server, pop3Join},
	LDAP:     {"LDAP", newLDAPClient, nil, newLDAPServer, nil},
	NNTP:     {"NNTP", nntpClient, nntpSecured, nntpServer, nntpJoin},
	Sieve:    {"ManageSieve", sieveClient, sieveSecured, sieveServer, sieveJoin},
}

// String returns the protocol's usual name.
func (p Protocol) String() string { return specs[p].name }

// ServerSpeaksFirst reports whether clients wait for the server's greeting, so
// that a connection belongs to one client from the start.
func (p Protocol) ServerSpeaksFirst() bool { return specs[p].secured != nil || p == MySQL }

// ServerGreets reports whether clients need the upstream's own greeting before they can
// request TLS. Then the upstream connection is opened first, with WithClient.
func (p Protocol) ServerGreets() bool { return p == MySQL }
