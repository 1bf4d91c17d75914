package bolt

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"
)

// ticketsKey holds the secrets of TLS tickets that a fleet shares.
var ticketsKey = []byte("tickets")

// KeepTickets stores the secrets of TLS tickets that a fleet shares. The database must be
// sealed.
func (s *Store) KeepTickets(content []byte) error {
	if !s.Sealed() {
		return &SealError{s.path, NotSealed}
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(metaBucket).Put(ticketsKey, s.codec.record(metaBucket, ticketsKey, content))
	})
	if err == nil {
		s.tickets = content
	}
	return err
}

// Tickets returns what KeepTickets stored last, or nil.
func (s *Store) Tickets() []byte { return s.tickets }

// readTickets reads what KeepTickets stored.
func readTickets(meta *bbolt.Bucket, c codec) ([]byte, error) {
	record := meta.Get(ticketsKey)
	if record == nil {
		return nil, nil
	}
	content, err := c.content(metaBucket, ticketsKey, record)
	if err != nil {
		return nil, fmt.Errorf("the ticket secrets: %w", err)
	}
	return bytes.Clone(content), nil
}
