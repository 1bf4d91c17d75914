package probe

import (
	"crypto/rand"
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// A hello is a ClientHello (RFC 8446, section 4.1.2). It can offer parameters
// that crypto/tls does not support; such a handshake is never completed.
type hello struct {
	version     uint16
	session     []byte
	suites      []uint16
	compression []byte
	extensions  []extension
}

type extension struct {
	kind uint16
	data []byte
}

// Extensions (IANA, "TLS ExtensionType Values").
const (
	extGroups         = 10
	extSchemes        = 13
	extVersions       = 43
	extCertSchemes    = 50
	extKeyShare       = 51
	extPSKModes       = 45
	recordAlert       = 21
	recordHandshake   = 22
	messageHello      = 1
	recordHeaderBytes = 5
)

var errNoHello = errors.New("the bytes are not a ClientHello")

// parseHello parses the record in which crypto/tls sent its ClientHello.
func parseHello(record []byte) (*hello, error) {
	var h hello
	var body, message, session, suites, compression, extensions cryptobyte.String
	var kind uint8
	var legacy, version uint16
	input := cryptobyte.String(record)
	if !input.ReadUint8(&kind) || kind != recordHandshake || !input.ReadUint16(&legacy) || !input.ReadUint16LengthPrefixed(&message) ||
		!message.ReadUint8(&kind) || kind != messageHello || !message.ReadUint24LengthPrefixed(&body) ||
		!body.ReadUint16(&version) || !body.Skip(32) || !body.ReadUint8LengthPrefixed(&session) ||
		!body.ReadUint16LengthPrefixed(&suites) || !body.ReadUint8LengthPrefixed(&compression) || !body.ReadUint16LengthPrefixed(&extensions) {
		return nil, errNoHello
	}
	h.version, h.session, h.compression = version, session, compression
	var ok bool
	if h.suites, ok = readList(suites); !ok {
		return nil, errNoHello
	}
	for !extensions.Empty() {
		var e extension
		var data cryptobyte.String
		if !extensions.ReadUint16(&e.kind) || !extensions.ReadUint16LengthPrefixed(&data) {
			return nil, errNoHello
		}
		e.data = data
		h.extensions = append(h.extensions, e)
	}
	return &h, nil
}

// record returns the ClientHello in one record, with a new random value.
func (h *hello) record() ([]byte, error) {
	random := make([]byte, 32)
	rand.Read(random)
	var out cryptobyte.Builder
	out.AddUint8(recordHandshake)
	out.AddUint16(0x0301) // for old servers (RFC 8446, section 5.1)
	out.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint8(messageHello)
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16(h.version)
			b.AddBytes(random)
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(h.session) })
			b.AddUint16LengthPrefixed(writeList(h.suites))
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(h.compression) })
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for _, e := range h.extensions {
					b.AddUint16(e.kind)
					b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(e.data) })
				}
			})
		})
	})
	return out.Bytes()
}

// readList returns code points up to the end of the content or, if the last is
// cut short, those before it and false.
func readList(content cryptobyte.String) (ids []uint16, ok bool) {
	for !content.Empty() {
		var id uint16
		if !content.ReadUint16(&id) {
			return ids, false
		}
		ids = append(ids, id)
	}
	return ids, true
}

func writeList(ids []uint16) cryptobyte.BuilderContinuation {
	return func(b *cryptobyte.Builder) {
		for _, id := range ids {
			b.AddUint16(id)
		}
	}
}

// list returns the code points in an extension that is a list of them, with a
// length of two bytes.
func (h *hello) list(kind uint16) []uint16 {
	var ids []uint16
	for _, e := range h.extensions {
		if e.kind != kind {
			continue
		}
		input := cryptobyte.String(e.data)
		var content cryptobyte.String
		if input.ReadUint16LengthPrefixed(&content) {
			more, _ := readList(content)
			ids = append(ids, more...)
		}
	}
	return ids
}

// with returns a copy in which an extension holds a list of code points.
func (h *hello) with(kind uint16, ids []uint16) *hello {
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(writeList(ids))
	out := h.without(kind)
	if data, err := b.Bytes(); err == nil { // fails only for a list that is too long
		out.extensions = append(out.extensions, extension{kind, data})
	}
	return out
}

// without returns a copy without some extensions.
func (h *hello) without(kinds ...uint16) *hello {
	out := *h
	out.extensions = slices.DeleteFunc(slices.Clone(h.extensions), func(e extension) bool { return slices.Contains(kinds, e.kind) })
	return &out
}

// offering returns a copy that offers more code points in an extension.
func (h *hello) offering(kind uint16, more []uint16) *hello {
	return h.with(kind, append(h.list(kind), more...))
}

// offeringSchemes returns a copy that offers more signature schemes, for
// signatures in the handshake and in certificates.
func (h *hello) offeringSchemes(more []uint16) *hello {
	out := h.offering(extSchemes, more)
	if out.list(extCertSchemes) != nil {
		out = out.offering(extCertSchemes, more)
	}
	return out
}

// offeringSuites returns a copy that offers more cipher suites.
func (h *hello) offeringSuites(more []uint16) *hello {
	out := *h
	out.suites = slices.Clone(h.suites)
	for _, id := range more {
		if !slices.Contains(out.suites, id) {
			out.suites = append(out.suites, id)
		}
	}
	return &out
}

// upToTLS12 returns a copy that does not offer TLS 1.3.
func (h *hello) upToTLS12() *hello {
	return h.without(extKeyShare, extPSKModes, extVersions)
}
