package socket

import (
	"encoding/binary"
	"errors"
)

// ErrIdleRecords ends a TLS 1.3 stream whose peer sends too many records that carry no
// data.
var ErrIdleRecords = errors.New("socket: the peer sends TLS records without data")

const (
	// idleRecords is how many records without data a peer may send, such as session
	// tickets, KeyUpdates and empty records.
	idleRecords = 128

	// bytesPerIdleRecord is the amount of data that allows one more such record. RFC
	// 8446 requires a KeyUpdate after at most 2^24 records.
	bytesPerIdleRecord = 16 << 10
)

// A RecordMeter counts the TLS records of a stream that carry no data. Each KeyUpdate
// costs several microseconds of CPU, and crypto/tls accepts any number of them between
// records with one byte of data. The methods of a nil *RecordMeter do nothing. Only the
// reading goroutine uses it.
//
// The code that completes the handshake calls MeterRecords before it, and Stop after it
// for versions other than TLS 1.3. The code that reads the stream calls Limit, and Data
// after each read.
type RecordMeter struct {
	header  [5]byte
	have    int  // bytes of header
	skip    int  // bytes left of the record
	idle    int  // records that Socket.Read has returned, minus those that carried data
	data    int  // bytes of data that have not yet earned another record
	stopped bool // Stop was called
	limited bool // Limit was called
}

// MeterRecords makes s count the TLS records that Read returns from now on.
func MeterRecords(s *Socket) *RecordMeter {
	s.records = new(RecordMeter)
	return s.records
}

// MeterOf returns the result of MeterRecords for s, or nil.
func MeterOf(s *Socket) *RecordMeter { return s.records }

// Stop ends counting. Versions before TLS 1.3 have no KeyUpdates, and some of their
// implementations send an empty record before each of data.
func (m *RecordMeter) Stop() { m.stopped = true }

// Limit makes Socket.Read fail with ErrIdleRecords after too many records without data. A
// second call has no effect.
func (m *RecordMeter) Limit() {
	if m != nil && !m.limited {
		m.limited, m.idle = true, 0
	}
}

// add counts the records in p, the next bytes of the stream.
func (m *RecordMeter) add(p []byte) {
	if m == nil || m.stopped {
		return
	}
	for len(p) > 0 {
		if m.skip > 0 {
			n := min(m.skip, len(p))
			m.skip -= n
			p = p[n:]
			continue
		}
		n := copy(m.header[m.have:], p)
		p = p[n:]
		if m.have += n; m.have == len(m.header) {
			m.have, m.skip = 0, int(binary.BigEndian.Uint16(m.header[3:]))
			m.idle++
		}
	}
}

// Data records that crypto/tls has returned n bytes of data of one record.
func (m *RecordMeter) Data(n int) {
	if m == nil || n == 0 {
		return
	}
	m.data += n
	m.idle -= 1 + m.data/bytesPerIdleRecord
	m.data %= bytesPerIdleRecord
}

// check returns ErrIdleRecords if there were too many records without data. Socket.Read calls
// it when crypto/tls needs more bytes: then all data of earlier records was returned.
func (m *RecordMeter) check() error {
	if m == nil || !m.limited {
		return nil
	}
	m.idle = max(m.idle, -idleRecords) // much data does not allow many at once
	if m.idle > idleRecords {
		return ErrIdleRecords
	}
	return nil
}
