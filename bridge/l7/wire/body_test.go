package wire

import (
	"io"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
)

// Each part of a body costs more than a few bytes do, so small chunks that arrive
// together become one part.
func TestSmallChunksAreJoined(t *testing.T) {
	const small, large = "1\r\nA\r\n", "200\r\n"
	for _, c := range []struct {
		name, input string
		want        []string
		end         error // nil: a fault
		rest        string
	}{
		{"small chunks", strings.Repeat(small, 300) + "0\r\nX: y\r\n\r\nnext", []string{strings.Repeat("A", smallChunk), strings.Repeat("A", 300-smallChunk)}, io.EOF, "next"},
		{"a large chunk", large + strings.Repeat("B", 512) + "\r\n" + small + "0\r\n\r\n", []string{strings.Repeat("B", 512), "A"}, io.EOF, ""},
		{"a large chunk after a small one", small + large + strings.Repeat("B", 512) + "\r\n0\r\n\r\n", []string{"A" + strings.Repeat("B", 512)}, io.EOF, ""},
		{"a fault after a small chunk", small + small + "x", []string{"AA"}, nil, "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, d := Reader{unread: []byte(c.input)}, Decoders{}
			var b Body
			b.Start(-1, true, &http1.Limits{}, &d)
			var got []string
			p, err := b.Next(&in)
			for ; err == nil && p != nil; p, err = b.Next(&in) {
				got = append(got, string(p))
				if b.Ended() || b.Err() != nil {
					t.Error("the end is known before the bytes were returned")
				}
			}
			if strings.Join(got, "|") != strings.Join(c.want, "|") {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if err == nil || (err == io.EOF) != (c.end == io.EOF) || string(in.Unread()) != c.rest {
				t.Errorf("it ended with %v and %q", err, in.Unread())
			}
			if c.end == nil && b.Err() == nil {
				t.Error("the body has no fault")
			}
		})
	}
}
