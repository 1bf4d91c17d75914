package policy

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// CheckRequestIDField returns why a field cannot carry a request's ID, or nil
// if it can.
func CheckRequestIDField(name string) error {
	if err := CheckFieldName(name); err != nil {
		return err
	}
	if f := (message.Field{Name: name}); isClaim(f) || isTrace(f) {
		return fmt.Errorf("%s has another purpose; name a separate field, such as X-Request-Id", name)
	}
	return nil
}

// maxRequestID is the maximum length of a client's request ID, in bytes.
const maxRequestID = 128

// AssignRequestID gives the request an ID. It keeps the ID in the named field, from
// any client, if the field occurs once and is plain; otherwise it creates one. If
// name is "", the request gets no ID.
func (f *Facts) AssignRequestID(name string, start time.Time, random *Entropy) {
	if name == "" {
		return
	}
	given, found := "", 0
	for i := range f.Request.Fields {
		if field := &f.Request.Fields[i]; sameSpelled(field.Name, name) {
			if found++; message.EqualFold(field.Name, name) {
				given = field.Value
			}
		}
	}
	if found == 1 && isRequestID(given) {
		f.RequestID = given
	} else {
		f.RequestID = newRequestID(start, random)
	}
}

// isRequestID reports whether a client's ID can be forwarded and logged unchanged:
// none of its characters has a special meaning anywhere.
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

// newRequestID returns a UUID of version 7 (RFC 9562, section 5.7): IDs of later
// requests sort after it.
func newRequestID(start time.Time, random *Entropy) string {
	var id [16]byte
	random.Read(id[6:])
	binary.BigEndian.PutUint16(id[:], uint16(start.UnixMilli()>>32))
	binary.BigEndian.PutUint32(id[2:], uint32(start.UnixMilli()))
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

// SetRequestID puts the ID into the request's field of that name, and removes
// every spelling of that field that the client sent.
func (f *Facts) SetRequestID(name string) {
	if f.RequestID != "" {
		setSpelled(&f.Request.Fields, name, f.RequestID)
	}
}

// ReturnRequestID puts the ID into a response's field of that name.
func (f *Facts) ReturnRequestID(response *message.Fields, name string) {
	if f.RequestID != "" {
		response.Set(name, f.RequestID)
	}
}
