package http2

import (
	"encoding/binary"

	h2 "golang.org/x/net/http2"
)

const (
	frameHeader   = 9 // bytes (section 4.1)
	flagEndStream = byte(h2.FlagDataEndStream)
	flagAck       = byte(h2.FlagPingAck)
	flagEndBlock  = byte(h2.FlagHeadersEndHeaders)
)

// start queues the header of a frame whose payload has n bytes. The caller
// appends the payload to buf.
func (o *outbox) start(kind h2.FrameType, flags byte, id uint32, n int) (t token, ok bool) {
	if o.err != nil || o.closed {
		return token{}, false
	}
	o.reserve(frameHeader + n)
	t = token{o.batch, len(o.buf)}
	o.buf = append(o.buf, byte(n>>16), byte(n>>8), byte(n), byte(kind), flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
	return t, true
}

// data queues a DATA frame.
func (o *outbox) data(id uint32, p []byte, end bool) token {
	var flags byte
	if end {
		flags = flagEndStream
	}
	t, ok := o.start(h2.FrameData, flags, id, len(p))
	if ok {
		o.buf = append(o.buf, p...)
		o.bulk += frameHeader + len(p)
	}
	return t
}

// block queues a header block as a HEADERS frame and any CONTINUATION frames it
// needs.
func (o *outbox) block(id uint32, block []byte, end bool) token {
	var flags byte
	if end {
		flags = flagEndStream
	}
	first, rest := cut(block)
	if len(rest) == 0 {
		flags |= flagEndBlock
	}
	t, ok := o.start(h2.FrameHeaders, flags, id, len(first))
	if !ok {
		return t
	}
	o.buf = append(o.buf, first...)
	for len(rest) > 0 {
		first, rest = cut(rest)
		flags = 0
		if len(rest) == 0 {
			flags = flagEndBlock
		}
		o.start(h2.FrameContinuation, flags, id, len(first))
		o.buf = append(o.buf, first...)
	}
	o.bulk += len(o.buf) - t.at
	return t
}

func cut(block []byte) (first, rest []byte) {
	n := min(len(block), maxFrame)
	return block[:n], block[n:]
}

// reply queues a frame that is neither a head nor part of a body.
func (o *outbox) reply(kind h2.FrameType, flags byte, id uint32, payload ...byte) token {
	t, ok := o.start(kind, flags, id, len(payload))
	if !ok {
		return t
	}
	o.buf = append(o.buf, payload...)
	o.replies += frameHeader + len(payload)
	if o.replies >= replyLimit && !o.ending {
		o.repliesFull.Store(true)
	}
	o.startSending()
	return t
}

func (o *outbox) windowUpdate(id uint32, n int) {
	o.reply(h2.FrameWindowUpdate, 0, id, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func (o *outbox) reset(id uint32, code h2.ErrCode) {
	o.reply(h2.FrameRSTStream, 0, id, byte(code>>24), byte(code>>16), byte(code>>8), byte(code))
}

func (o *outbox) ping(data [8]byte) token { return o.reply(h2.FramePing, 0, 0, data[:]...) }
func (o *outbox) pingAck(data [8]byte)    { o.reply(h2.FramePing, flagAck, 0, data[:]...) }
func (o *outbox) settingsAck()            { o.reply(h2.FrameSettings, flagAck, 0) }

func (o *outbox) goAway(last uint32, code h2.ErrCode, reason string) {
	var p []byte
	p = binary.BigEndian.AppendUint32(p, last)
	p = binary.BigEndian.AppendUint32(p, uint32(code))
	o.reply(h2.FrameGoAway, 0, 0, append(p, reason...)...)
}

// queuePreface queues the start of a connection: the preface, if any, and the
// settings. They are sent with the next frame, or when startSending is called.
func (o *outbox) queuePreface(preface string, settings []h2.Setting, window int) {
	o.buf = append(o.buf, preface...)
	o.start(h2.FrameSettings, 0, 0, 6*len(settings))
	for _, s := range settings {
		o.buf = binary.BigEndian.AppendUint16(o.buf, uint16(s.ID))
		o.buf = binary.BigEndian.AppendUint32(o.buf, s.Val)
	}
	o.start(h2.FrameWindowUpdate, 0, 0, 4)
	o.buf = binary.BigEndian.AppendUint32(o.buf, uint32(window))
}
