package hpack

import "golang.org/x/net/http2/hpack"

// A Mode says what the decoder, and everything behind it, may remember of a field.
type Mode byte

const (
	// Index adds the field to the dynamic table, so that it takes one or two bytes the
	// next time.
	Index Mode = iota

	// Once does not add the field, because its value rarely repeats.
	Once

	// Never is Once for secrets. Proxies must not add the field to a table either (RFC
	// 7541, section 7.1.3).
	Never
)

// An Encoder encodes fields as header blocks for one connection. It keeps copies of the
// fields in its table, at most as many as fit into the size of the table. It must not be
// used concurrently.
type Encoder struct {
	table table
	limit uint32 // what the table may grow to

	// A change of the table's size is part of the next block (section 4.2).
	changed bool
	least   uint32 // the least size since the last block
}

// NewEncoder returns an Encoder whose table has limit bytes, in the sense of section 4.1.
// The decoder begins with a table of at least this size.
func NewEncoder(limit uint32) *Encoder {
	return &Encoder{limit: limit, table: table{max: limit}}
}

// SetTableSize sets the size of the table to what the decoder allows, or to the limit if
// that is less.
func (e *Encoder) SetTableSize(n uint32) {
	n = min(n, e.limit)
	if !e.changed {
		e.changed, e.least = true, n
	}
	e.least = min(e.least, n)
	e.table.resize(n)
}

// Begin appends what must come first in a block, and returns the result. It must be
// called once for each block.
func (e *Encoder) Begin(p []byte) []byte {
	if !e.changed {
		return p
	}
	e.changed = false
	if e.least < e.table.max {
		p = appendInt(p, 0x20, 5, uint64(e.least))
	}
	return appendInt(p, 0x20, 5, uint64(e.table.max))
}

// Append appends a field, and returns the result. The name must be in lower case.
func (e *Encoder) Append(p []byte, name, value string, mode Mode) []byte {
	static, entries := staticName(name)
	if mode != Never {
		for i := static; i < static+entries; i++ {
			if staticValues[i] == value {
				return append(p, 0x80|i)
			}
		}
	}
	index := uint64(static)
	var hash hashes
	if mode == Index {
		hash = e.table.hash(name, value)
		if at := e.table.find(name, value, hash); at > 0 {
			return appendInt(p, 0x80, 7, at)
		}
	}
	if index == 0 {
		if mode != Index {
			hash.name = e.table.hashName(name)
		}
		index = e.table.findName(name, hash.name)
	}
	add := false
	switch {
	case mode == Never:
		p = appendInt(p, 0x10, 4, index)
	case mode == Index && e.table.fits(name, value):
		add = true
		p = appendInt(p, 0x40, 6, index)
	default:
		p = appendInt(p, 0, 4, index)
	}
	if index == 0 {
		p = appendString(p, name)
	}
	p = appendString(p, value)
	if add {
		e.table.add(name, value, hash)
	}
	return p
}

// appendInt appends an integer with a prefix of some bits, below a pattern of the bits
// above it (section 5.1).
func appendInt(p []byte, pattern byte, prefix int, n uint64) []byte {
	most := uint64(1)<<prefix - 1
	if n < most {
		return append(p, pattern|byte(n))
	}
	p = append(p, pattern|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		p = append(p, 0x80|byte(n))
	}
	return append(p, byte(n))
}

// appendString appends a string literal (section 5.2).
func appendString(p []byte, s string) []byte {
	n := hpack.HuffmanEncodeLength(s)
	if n >= uint64(len(s)) {
		return append(appendInt(p, 0, 7, uint64(len(s))), s...)
	}
	return hpack.AppendHuffmanString(appendInt(p, 0x80, 7, n), s)
}
