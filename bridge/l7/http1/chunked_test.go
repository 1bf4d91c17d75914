package http1

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// decode decodes input that arrives in pieces, and returns what is left over.
func decode(l Limits, pieces ...string) (data, rest string, trailer message.Fields, err error) {
	var c Chunked
	c.Reset(&l)
	for i, in := range pieces {
		buf := []byte(in)
		for {
			d, n, err := c.Next(buf)
			data += string(d)
			buf = buf[n:]
			if err == io.EOF {
				return data, string(buf) + strings.Join(pieces[i+1:], ""), slices.Clone(c.Trailer()), nil
			}
			if err != nil {
				if _, _, again := c.Next([]byte("0\r\n\r\n")); again != err || c.Done() {
					return data, "", nil, fmt.Errorf("%w, and then %v", err, again)
				}
				return data, "", nil, err
			}
			if len(buf) == 0 {
				break
			}
		}
	}
	return data, "", nil, errUnfinished
}

var chunkedBodies = []struct {
	name, in, data string
	trailer        message.Fields
	err            error
}{
	{name: "nothing", in: "0\r\n\r\n"},
	{name: "a last chunk of several zeros", in: "0000000000000000\r\n\r\n"},
	{name: "a chunk", in: "5\r\nhello\r\n0\r\n\r\n", data: "hello"},
	{name: "several chunks", in: "5\r\nhello\r\n1\r\n,\r\n6\r\n world\r\n00\r\n\r\n", data: "hello, world"},
	{name: "sizes in either case", in: "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", data: "01234567890123456789"},
	{name: "sixteen digits", in: "0000000000000005\r\nhello\r\n0\r\n\r\n", data: "hello"},
	{name: "data that looks like chunks", in: "9\r\n\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", data: "\r\n0\r\n\r\n\r\n"},
	{name: "an extension", in: "5;a\r\nhello\r\n0;b\r\n\r\n", data: "hello"},
	{name: "extensions with values", in: "5;a=b;c;d=\"e;\\\"\\\t \u00e9\";f=g\r\nhello\r\n0;a=\"\"\r\n\r\n", data: "hello"},
	{name: "a trailer", in: "0\r\nA: b\r\nc:\r\nA: \td \r\n\r\n", trailer: message.Fields{{Name: "A", Value: "b"}, {Name: "c", Value: ""}, {Name: "A", Value: "d"}}},
	{name: "a trailer at its limit", in: "0\r\nA: " + strings.Repeat("b", 200-len("A: rnrn")) + "\r\n\r\n",
		trailer: message.Fields{{Name: "A", Value: strings.Repeat("b", 200-len("A: rnrn"))}}},

	{name: "no size", in: "\r\nhello\r\n", err: errChunkSize},
	{name: "a size with a minus", in: "-5\r\nhello\r\n", err: errChunkSize},
	{name: "a size with a plus", in: "+5\r\nhello\r\n", err: errChunkSize},
	{name: "a size with 0x", in: "0x5\r\nhello\r\n", err: errChunkSize},
	{name: "a blank before a size", in: " 5\r\nhello\r\n", err: errChunkSize},
	{name: "a blank after a size", in: "5 \r\nhello\r\n", err: errChunkSize},
	{name: "a tab after a size", in: "5\t;a\r\nhello\r\n", err: errChunkSize},
	{name: "a size with an underscore", in: "1_0\r\n", err: errChunkSize},
	{name: "a size with a letter after f", in: "g\r\n", err: errChunkSize},
	{name: "a size in digits that are not ASCII", in: "\u0665\r\nhello\r\n", err: errChunkSize},
	{name: "a size and a NUL", in: "5\x00\r\nhello\r\n", err: errChunkSize},
	{name: "a size and a comma", in: "5,a\r\nhello\r\n", err: errChunkSize},
	{name: "a size of seventeen digits", in: "00000000000000005\r\nhello\r\n", err: errChunkSizeSize},
	{name: "a size over 64 bits", in: "10000000000000000\r\n", err: errChunkSizeSize},
	{name: "a size over 63 bits", in: "8000000000000000\r\n", err: errChunkSizeSize},
	{name: "the largest size of 64 bits", in: "ffffffffffffffff\r\n", err: errChunkSizeSize},
	{name: "sizes whose sum exceeds 63 bits", in: "1\r\na\r\n7fffffffffffffff\r\n", data: "a", err: errChunkSizeSize},
	{name: "a size over the limit", in: "3e9\r\n", err: errBodySize},
	{name: "sizes whose sum exceeds the limit", in: "1\r\na\r\n3e8\r\n", data: "a", err: errBodySize},
	{name: "a bare line feed after a size", in: "5\nhello\r\n", err: errChunkLine},
	{name: "a bare carriage return after a size", in: "5\rhello\r\n", err: errChunkLine},
	{name: "a doubled carriage return after a size", in: "5\r\r\nhello\r\n", err: errChunkLine},
	{name: "a bare line feed after the last size", in: "0\n\n", err: errChunkLine},
	{name: "data longer than its size", in: "5\r\nhello!\r\n0\r\n\r\n", data: "hello", err: errChunkEnd},
	{name: "data shorter than its size", in: "5\r\nhell\r\n0\r\n\r\n", data: "hell\r", err: errChunkEnd},
	{name: "data that ends in a bare line feed", in: "5\r\nhello\n0\r\n\r\n", data: "hello", err: errChunkEnd},
	{name: "data that ends in a bare carriage return", in: "5\r\nhello\r0\r\n\r\n", data: "hello", err: errChunkEnd},
	{name: "no line end after the data", in: "5\r\nhello0\r\n\r\n", data: "hello", err: errChunkEnd},

	{name: "an extension without a name", in: "5;\r\nhello\r\n", err: errExtension},
	{name: "two semicolons", in: "5;;a\r\nhello\r\n", err: errExtension},
	{name: "a value without a name", in: "5;=a\r\nhello\r\n", err: errExtension},
	{name: "a name without its value", in: "5;a=\r\nhello\r\n", err: errExtension},
	{name: "two values", in: "5;a=b=c\r\nhello\r\n", err: errExtension},
	{name: "a blank before an extension", in: "5; a\r\nhello\r\n", err: errExtension},
	{name: "a blank after an extension", in: "5;a \r\nhello\r\n", err: errExtension},
	{name: "a blank before a value", in: "5;a= b\r\nhello\r\n", err: errExtension},
	{name: "a bare line feed after a semicolon", in: "5;\nhello\r\n", err: errExtension},
	{name: "a bare line feed in an extension", in: "5;a\nhello\r\n", err: errExtension},
	{name: "a bare line feed in a value", in: "5;a=b\nhello\r\n", err: errExtension},
	{name: "a bare line feed in quotes", in: "5;a=\"b\n\"\r\nhello\r\n", err: errExtension},
	{name: "an escaped line feed in quotes", in: "5;a=\"b\\\n\"\r\nhello\r\n", err: errExtension},
	{name: "a line end in quotes", in: "5;a=\"b\r\nhello\r\n\"\r\n", err: errExtension},
	{name: "text after a quoted value", in: "5;a=\"b\"c\r\nhello\r\n", err: errExtension},
	{name: "a name in quotes", in: "5;\"a\"\r\nhello\r\n", err: errExtension},
	{name: "a NUL in an extension", in: "5;a\x00\r\nhello\r\n", err: errExtension},
	{name: "a bare carriage return in an extension", in: "5;a\rb\r\nhello\r\n", err: errChunkLine},
	{name: "a long extension", in: "5;" + strings.Repeat("a", maxExtensions+1) + "\r\nhello\r\n", err: errExtensionSize},
	{name: "many extensions", in: strings.Repeat("1;"+strings.Repeat("a", 100)+"\r\nx\r\n", 50), data: strings.Repeat("x", 40), err: errExtensionSize},

	{name: "a bare line feed after the trailer", in: "0\r\n\n", err: errBareLF},
	{name: "a bare line feed in the trailer", in: "0\r\nA: b\n\r\n", err: errBareLF},
	{name: "a bare carriage return in the trailer", in: "0\r\nA: b\rc\r\n\r\n", err: errBareCR},
	{name: "a doubled carriage return after the last chunk", in: "0\r\n\r\r\n\r\n", err: errBareCR},
	{name: "a folded field in the trailer", in: "0\r\nA: b\r\n c\r\n\r\n", err: errFold},
	{name: "a blank before a colon in the trailer", in: "0\r\nA : b\r\n\r\n", err: errColonBlank},
	{name: "a line without a colon in the trailer", in: "0\r\nGET / HTTP/1.1\r\n\r\n", err: errColonBlank},
	{name: "a NUL in the trailer", in: "0\r\nA: \x00\r\n\r\n", err: errControl},
	{name: "a length in the trailer", in: "0\r\nContent-Length: 5\r\n\r\n", err: errTrailerFraming},
	{name: "a coding in the trailer", in: "0\r\nA: b\r\ntransfer-encoding: chunked\r\n\r\n", err: errTrailerFraming},
	{name: "a host in the trailer", in: "0\r\nhost: a\r\n\r\n", err: errTrailerFraming},
	{name: "a connection option in the trailer", in: "0\r\nConnection: close\r\n\r\n", err: errTrailerFraming},
	{name: "an upgrade in the trailer", in: "0\r\nUpgrade: h2c\r\n\r\n", err: errTrailerFraming},
	{name: "a trailer that announces a trailer", in: "0\r\nTrailer: a\r\n\r\n", err: errTrailerFraming},
	{name: "a trailer over its limit", in: "0\r\nA: " + strings.Repeat("b", 201-len("A: rnrn")) + "\r\n\r\n", err: errTrailerSize},
	{name: "a trailer without an end", in: "0\r\nA: " + strings.Repeat("b", 300), err: errTrailerSize},
	{name: "too many trailer fields", in: "0\r\na:\r\na:\r\na:\r\na:\r\na:\r\n\r\n", err: errFieldCount},
}

// chunkedLimits are the limits for chunkedBodies.
var chunkedLimits = Limits{Trailer: 200, Fields: 4, Body: 1000}

func TestChunkedBodiesWholeAndSplitAnywhere(t *testing.T) {
	const next = "GET /next"
	for _, c := range chunkedBodies {
		t.Run(c.name, func(t *testing.T) {
			l := chunkedLimits
			if strings.Contains(c.name, "63 bits") {
				l.Body = 0
			}
			in := c.in + next
			check := func(how string, pieces ...string) {
				t.Helper()
				data, rest, trailer, err := decode(l, pieces...)
				if data != c.data || err != c.err || !slices.Equal(trailer, c.trailer) || err == nil && rest != next {
					t.Errorf("%s: %q, rest %q, trailer %q, %v", how, data, rest, trailer, err)
				}
			}
			check("whole", in)
			check("byte by byte", strings.Split(in, "")...)
			for i := range in {
				check("in two", in[:i], in[i:])
			}
		})
	}
}

func TestAnIncompleteChunkedBodyIsNotDone(t *testing.T) {
	whole := "5;a=\"b\"\r\nhello\r\n0\r\nA: b\r\n\r\n"
	for i := range whole {
		if _, _, _, err := decode(Limits{}, whole[:i]); err != errUnfinished {
			t.Errorf("%q: %v", whole[:i], err)
		}
	}
}

func TestReusingADecoderDoesNotAllocate(t *testing.T) {
	var c Chunked
	body := []byte("5\r\nhello\r\n0\r\n\r\n")
	alloctest.Want(t, "decoding", 0, func() {
		c.Reset(&Limits{})
		for in := body; ; {
			_, n, err := c.Next(in)
			if in = in[n:]; err != nil {
				break
			}
		}
	})
	if !c.Done() {
		t.Error("Done returned false after the body ended")
	}
}

func TestTheExtensionLimitGrowsWithTheData(t *testing.T) {
	chunk := "400;signature=" + strings.Repeat("0", 40) + "\r\n" + strings.Repeat("x", 1024) + "\r\n"
	if data, _, _, err := decode(Limits{}, strings.Repeat(chunk, 1000)+"0\r\n\r\n"); err != nil || len(data) != 1024*1000 {
		t.Errorf("%d %v", len(data), err)
	}
}
