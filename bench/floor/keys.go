package floor

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

const (
	headerBytes = 5     // the size of a TLS record's header
	tagBytes    = 16    // the size of an AES-GCM tag
	maxPlain    = 16384 // the maximum size of a record's plaintext
	// maxRecord is the size of the largest record that a peer may send (RFC 8446,
	// section 5.2).
	maxRecord = headerBytes + maxPlain + 256

	typeAlert       = 21
	typeHandshake   = 22
	typeApplication = 23
)

// A secretLog collects the traffic secrets that crypto/tls writes to
// tls.Config.KeyLogWriter.
type secretLog struct{ client, server []byte }

// Write implements io.Writer for one line (the NSS key log format).
func (s *secretLog) Write(line []byte) (int, error) {
	fields := bytes.Fields(line)
	if len(fields) != 3 {
		return 0, fmt.Errorf("unexpected line in the key log")
	}
	secret, err := hex.DecodeString(string(fields[2]))
	switch string(fields[0]) {
	case "CLIENT_TRAFFIC_SECRET_0":
		s.client = secret
	case "SERVER_TRAFFIC_SECRET_0":
		s.server = secret
	}
	return len(line), err
}

// A half is one direction of a TLS 1.3 connection with TLS_AES_128_GCM_SHA256.
type half struct {
	aead   cipher.AEAD
	iv     [12]byte
	number uint64 // the number of the next record
}

// newHalf derives the keys of a direction (RFC 8446, section 7.3).
func newHalf(secret []byte) (*half, error) {
	if len(secret) != sha256.Size {
		return nil, errors.New("no TLS 1.3 secret of TLS_AES_128_GCM_SHA256")
	}
	key, err := expand(secret, "key", 16)
	if err != nil {
		return nil, err
	}
	iv, err := expand(secret, "iv", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &half{aead: aead, iv: [12]byte(iv)}, err
}

// expand is HKDF-Expand-Label with an empty context.
func expand(secret []byte, label string, n int) ([]byte, error) {
	label = "tls13 " + label
	info := append([]byte{0, byte(n), byte(len(label))}, label...)
	return hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
}

// nonce writes the nonce of the next record.
func (h *half) nonce(out *[12]byte) []byte {
	*out = h.iv
	binary.BigEndian.PutUint64(out[4:], binary.BigEndian.Uint64(out[4:])^h.number)
	h.number++
	return out[:]
}

// seal encrypts the n bytes after the header of record in place, and returns the
// record. It needs room for one byte and the tag after them.
func (h *half) seal(record []byte, n int, contentType byte) []byte {
	record[headerBytes+n] = contentType
	header := record[:headerBytes]
	header[0], header[1], header[2] = typeApplication, 3, 3
	binary.BigEndian.PutUint16(header[3:], uint16(n+1+tagBytes))
	var nonce [12]byte
	plain := record[headerBytes : headerBytes+n+1]
	h.aead.Seal(plain[:0], h.nonce(&nonce), plain, header)
	return record[:headerBytes+n+1+tagBytes]
}

// open decrypts a complete record and appends its bytes to out. It returns out and
// the record's content type.
func (h *half) open(out, record []byte) ([]byte, byte, error) {
	var nonce [12]byte
	plain, err := h.aead.Open(out, h.nonce(&nonce), record[headerBytes:], record[:headerBytes])
	if err != nil || len(plain) == len(out) {
		return nil, 0, fmt.Errorf("record %d cannot be opened: %w", h.number-1, err)
	}
	end := len(plain) - 1 // no peer of the benchmark pads
	return plain[:end], plain[end], nil
}
