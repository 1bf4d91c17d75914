package l7

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// CheckRequestIDField reports why a field cannot have a request's id.
func CheckRequestIDField(name string) error {
	if err := CheckFieldName(name); err != nil {
		return err
	}
	if f := (message.Field{Name: name}); isClaim(f) || isTrace(f) {
		return fmt.Errorf("%s says something else; name a field of its own, such as X-Request-Id", name)
	}
	return nil
}

// maxRequestID is the longest request id that is taken over, in bytes.
const maxRequestID = 128

// nameRequest gives the request an id, if the table asks for ids: the one that it
// came with, whoever sent it, if it is there once and plain, or a new one.
func (x *exchange) nameRequest() {
	name := x.table.RequestIDField
	if name == "" {
		return
	}
	given, found := "", 0
	for i := range x.request.Fields {
		if f := &x.request.Fields[i]; sameSpelled(f.Name, name) {
			if found++; message.EqualFold(f.Name, name) {
				given = f.Value
			}
		}
	}
	if found == 1 && isRequestID(given) {
		x.requestID = given
	} else {
		x.requestID = x.newRequestID()
	}
}

// isRequestID reports whether an id that came can be passed on and logged as it
// is: it has nothing that anything would take for more than a part of a name.
func isRequestID(s string) bool {
	if s == "" || len(s) > maxRequestID {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '.', c == '_', c == '~', c == '+', c == '/', c == '=', c == ':', c == '@':
		default:
			return false
		}
	}
	return true
}

// newRequestID returns a UUID of version 7 (RFC 9562, section 5.7): those of
// later requests sort behind.
func (x *exchange) newRequestID() string {
	var id [16]byte
	x.server.entropy.read(id[6:])
	binary.BigEndian.PutUint16(id[:], uint16(x.start.UnixMilli()>>32))
	binary.BigEndian.PutUint32(id[2:], uint32(x.start.UnixMilli()))
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	var b [36]byte
	hex.Encode(b[:], id[:4])
	b[8] = '-'
	hex.Encode(b[9:], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:], id[10:])
	return string(b[:])
}

// setRequestID puts the id into the request, in the place of whatever came.
func (x *exchange) setRequestID() {
	if x.requestID != "" {
		setSpelled(&x.request.Fields, x.table.RequestIDField, x.requestID)
	}
}

// tellRequestID puts the id into the response.
func (x *exchange) tellRequestID() {
	if x.requestID != "" {
		x.response.Fields.Set(x.table.RequestIDField, x.requestID)
	}
}
