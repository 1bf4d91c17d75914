package starttls

// A Protocol is a protocol that begins in plaintext. The zero Protocol begins
// with TLS.
type Protocol int

// The protocols.
const (
	None Protocol = iota
	Postgres
)

// A protocol's name, and its dialects.
type spec struct {
	name   string
	client func() dialect // the client's part of the upgrade
}

var specs = map[Protocol]spec{
	Postgres: {name: "PostgreSQL", client: func() dialect { return &postgresClient{} }},
}

// String returns the protocol's usual name.
func (p Protocol) String() string { return specs[p].name }
