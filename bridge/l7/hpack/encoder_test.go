package hpack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

const limit = 4096

// A pair is an encoder with the decoder of its peer.
type pair struct {
	t       testing.TB
	encoder *Encoder
	decoder *hpack.Decoder
	got     []hpack.HeaderField
	buf     []byte
}

func newPair(t testing.TB) *pair {
	p := &pair{t: t, encoder: NewEncoder(limit)}
	p.decoder = hpack.NewDecoder(limit, func(f hpack.HeaderField) { p.got = append(p.got, f) })
	return p
}

// A field is a field with the mode in which it is encoded.
type field struct {
	name, value string
	mode        Mode
}

// block encodes fields, checks that the decoder gets them, and returns the length of the
// block.
func (p *pair) block(fields ...field) int {
	p.t.Helper()
	p.buf, p.got = p.encoder.Begin(p.buf[:0]), p.got[:0]
	for _, f := range fields {
		p.buf = p.encoder.Append(p.buf, f.name, f.value, f.mode)
	}
	if _, err := p.decoder.Write(p.buf); err != nil {
		p.t.Fatalf("%v in %x of %v", err, p.buf, fields)
	}
	if err := p.decoder.Close(); err != nil {
		p.t.Fatal(err)
	}
	if len(p.got) != len(fields) {
		p.t.Fatalf("%d fields became %d", len(fields), len(p.got))
	}
	for i, f := range fields {
		if want := (hpack.HeaderField{Name: f.name, Value: f.value, Sensitive: f.mode == Never}); p.got[i] != want {
			p.t.Fatalf("field %d is %+v, want %+v", i, p.got[i], want)
		}
	}
	return len(p.buf)
}

// resize changes what the decoder allows.
func (p *pair) resize(n uint32) {
	p.decoder.SetAllowedMaxDynamicTableSize(n)
	p.encoder.SetTableSize(n)
}

func TestTheStaticTableIsThatOfTheRFC(t *testing.T) {
	decoder := hpack.NewDecoder(limit, nil)
	names := map[string]int{}
	for i := 1; i < len(staticValues); i++ {
		fields, err := decoder.DecodeFull([]byte{0x80 | byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		f := fields[0]
		if staticValues[i] != f.Value {
			t.Errorf("entry %d has the value %q, want %q", i, staticValues[i], f.Value)
		}
		if names[f.Name] == 0 {
			names[f.Name] = i
		}
		index, entries := staticName(f.Name)
		if int(index) != names[f.Name] || i >= int(index+entries) {
			t.Errorf("%s: entries %d to %d, want %d to %d at least", f.Name, index, index+entries-1, names[f.Name], i)
		}
		if got := NewEncoder(limit).Append(nil, f.Name, f.Value, Once); len(got) != 1 || got[0] != 0x80|byte(i) {
			t.Errorf("%s: %s is encoded as %x", f.Name, f.Value, got)
		}
	}
	total := 0
	for name := range names {
		_, entries := staticName(name)
		total += int(entries)
	}
	if total != len(staticValues)-1 {
		t.Errorf("the names have %d entries", total)
	}
	if index, entries := staticName("x-other"); index != 0 || entries != 0 {
		t.Errorf("another name has %d, %d", index, entries)
	}
}

func TestRepeatedFieldsTakeOneByte(t *testing.T) {
	p := newPair(t)
	head := []field{{":method", "PUT", Index}, {":path", "/a/b", Index}, {"x-a", "some value", Index}, {"x-b", "", Index}, {"accept", "*/*", Index}}
	first := p.block(head...)
	if again := p.block(head...); again != len(head) || first <= 2*again {
		t.Errorf("%d bytes, then %d", first, again)
	}
	// A name that the table has takes two bytes, and its value a byte for the length and two.
	for _, mode := range []Mode{Once, Never, Index} {
		if n := p.block(field{"x-a", "!!", mode}); n > 5 {
			t.Errorf("mode %d: a known name with a new value takes %d bytes", mode, n)
		}
	}
}

func TestSecretsNeverEnterTheTable(t *testing.T) {
	p := newPair(t)
	for _, mode := range []Mode{Once, Never} {
		for _, name := range []string{"cookie", "x-secret"} {
			f := field{name, "secret", mode}
			if first, again := p.block(f), p.block(f); first != again || again < len("secret")/2 {
				t.Errorf("%s, mode %d: %d bytes, then %d", name, mode, first, again)
			}
		}
	}
	if p.encoder.table.size != 0 {
		t.Errorf("the table holds %d bytes", p.encoder.table.size)
	}
	// A guess is not confirmed by a shorter encoding.
	p.block(field{"x-secret", "guess", Index})
	right, wrong := p.block(field{"x-secret", "guess", Never}), p.block(field{"x-secret", "gueSs", Never})
	if right != wrong {
		t.Errorf("a secret that equals an entry takes %d bytes, another one %d", right, wrong)
	}
}

func TestTheTableFollowsItsSize(t *testing.T) {
	p := newPair(t)
	many := func(from, n int) (fields []field) {
		for i := range n {
			fields = append(fields, field{fmt.Sprint("name-", from+i), strings.Repeat("v", (from+i)%50), Index})
		}
		return fields
	}
	p.block(many(0, 300)...)
	for i, size := range []uint32{100, 0, 4096, 33, 1 << 30, 200} {
		p.resize(size)
		p.block(many(i, 30)...)
		p.block(many(i, 30)...)
		if got := &p.encoder.table; got.size > min(size, limit) || got.max != min(size, limit) {
			t.Errorf("size %d: the table has %d of %d bytes", size, got.size, got.max)
		}
	}
	// Of several changes between two blocks, the least and the last count.
	p.resize(4096)
	p.block(many(0, 50)...)
	p.encoder.SetTableSize(0)
	p.encoder.SetTableSize(50)
	p.encoder.SetTableSize(4096)
	p.block(many(0, 50)...)
	p.block(many(0, 50)...)
	if got := p.encoder.Begin(nil); got != nil {
		t.Errorf("a size that has not changed is sent: %x", got)
	}
	// A field that is larger than the table is not added, and evicts nothing.
	before := p.encoder.table.size
	p.block(field{"x-large", strings.Repeat("x", limit), Index})
	if after := p.encoder.table.size; after != before || before == 0 {
		t.Errorf("the table had %d bytes, and has %d", before, after)
	}
}

// A table whose entries all have one hash works, slowly.
func TestCollisionsAreNotMixedUp(t *testing.T) {
	table := &table{max: limit}
	table.hashName("")
	var same hashes
	for i := range 50 {
		table.add(fmt.Sprint("n", i), "v", same)
		for j := range i + 1 {
			if got := table.find(fmt.Sprint("n", j), "v", same); got != uint64(62+i-j) {
				t.Fatalf("entry %d of %d has the index %d", j, i, got)
			}
		}
	}
	if got := table.find("n1", "w", same); got != 0 {
		t.Errorf("another value has the index %d", got)
	}
	if got := table.find("n", "1v", same); got != 0 {
		t.Errorf("another name has the index %d", got)
	}
	if got := table.findName("n7", 0); got != 62+49-7 {
		t.Errorf("a name has the index %d", got)
	}
}

func TestTheTableKeepsNoHead(t *testing.T) {
	e := NewEncoder(limit)
	held := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := held()
	for i := range 200 {
		for _, text := range []string{fmt.Sprintf("x-%06dvalue", i), fmt.Sprintf("x-%06d", i)} {
			head := string(append([]byte(text), make([]byte, 60<<10)...)) // what an HTTP/1 head is parsed from
			e.Append(nil, head[:8], head[8:len(text)], Index)
		}
	}
	if got := held() - before; got > 1<<20 {
		t.Errorf("the table holds %d KiB after heads of 60 KiB", got>>10)
	}
	runtime.KeepAlive(e)
}

// FuzzEncoder lets bytes choose fields, modes and sizes.
func FuzzEncoder(f *testing.F) {
	f.Add([]byte("\x00\x01\x02abc"))
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		seed := make([]byte, 2000)
		for i := range seed {
			seed[i] = byte(random.Uint32())
		}
		f.Add(seed)
	}
	names := []string{":method", ":path", "accept", "cookie", "x-a", "x-b", "x-long-name-of-a-field", "date"}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := newPair(t)
		var fields []field
		for len(data) >= 3 {
			op, name, value := data[0], int(data[1]), int(data[2])
			data = data[3:]
			switch {
			case op < 10:
				p.block(fields...)
				fields = nil
				p.resize(uint32(name) << (value % 8))
			case op < 60:
				p.block(fields...)
				fields = nil
			default:
				text := strings.Repeat(string('a'+rune(value%26)), value%40)
				if value > 250 {
					text = strings.Repeat("y", value*15)
				}
				named := names[name%len(names)]
				if name > 128 {
					named = fmt.Sprint("x-", name)
				}
				fields = append(fields, field{named, text, Mode(op % 3)})
			}
		}
		p.block(fields...)
	})
}

func BenchmarkHead(b *testing.B) {
	head := []field{
		{":method", "GET", Index}, {":scheme", "https", Index}, {":path", "/some/path", Index}, {":authority", "api.example.com", Index},
		{"accept", "*/*", Index}, {"user-agent", "curl/8.0", Index}, {"x-forwarded-for", "127.0.0.1", Index}, {"x-forwarded-proto", "https", Index},
		{"content-length", "1024", Once},
	}
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		e := NewEncoder(limit)
		var p []byte
		for b.Loop() {
			p = e.Begin(p[:0])
			for _, f := range head {
				p = e.Append(p, f.name, f.value, f.mode)
			}
		}
	})
	b.Run("x", func(b *testing.B) {
		b.ReportAllocs()
		w := new(bytes.Buffer)
		e := hpack.NewEncoder(w)
		for b.Loop() {
			w.Reset()
			for _, f := range head {
				_ = e.WriteField(hpack.HeaderField{Name: f.name, Value: f.value, Sensitive: f.mode != Index})
			}
		}
	})
}
