package socket

import (
	"bytes"
	"testing"
)

// record returns a TLS record of n bytes.
func record(n int) []byte {
	return append([]byte{23, 3, 3, byte(n >> 8), byte(n)}, make([]byte, n)...)
}

// Only records without data count, for any split into reads.
func TestRecordsWithoutDataAreLimited(t *testing.T) {
	stream := bytes.Repeat(append(record(17), record(300)...), 500)
	for _, piece := range []int{1, 4, 5, 6, 100, len(stream)} {
		m := new(RecordMeter)
		m.Limit()
		for rest := stream; len(rest) > 0; {
			n := min(piece, len(rest))
			m.add(rest[:n])
			rest = rest[n:]
		}
		if m.idle != 1000 {
			t.Errorf("in pieces of %d: %d records", piece, m.idle)
		}
		for range 1000 - idleRecords {
			m.Data(1)
		}
		if err := m.check(); err != nil {
			t.Errorf("within the limit: %v", err)
		}
		m.add(record(0))
		if m.check() != ErrIdleRecords {
			t.Error("no error above the limit")
		}
		m.Data(bytesPerIdleRecord)
		if err := m.check(); err != nil {
			t.Errorf("data allows no more: %v", err)
		}
	}
	m := new(RecordMeter)
	m.Limit()
	m.Data(1 << 30)
	_ = m.check()
	for range 2*idleRecords + 1 {
		m.add(record(17))
	}
	if m.check() != ErrIdleRecords {
		t.Error("much data allows many records without data at once")
	}
	unlimited := new(RecordMeter)
	unlimited.add(bytes.Repeat(record(1), 1000))
	if unlimited.check() != nil || (*RecordMeter)(nil).check() != nil {
		t.Error("a stream without a limit is limited")
	}
}
