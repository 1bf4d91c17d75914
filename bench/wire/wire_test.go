package wire

import (
	"bytes"
	"errors"
	"testing"
)

func TestReadHeaderReadsAnAppendedHeader(t *testing.T) {
	b := AppendHeader(nil, Sink, 1<<40+7)
	if len(b) != HeaderSize {
		t.Fatalf("a header has %d bytes, want %d", len(b), HeaderSize)
	}
	op, seed, err := ReadHeader(bytes.NewReader(b))
	if op != Sink || seed != 1<<40+7 || err != nil {
		t.Fatalf("got %d, %d, %v", op, seed, err)
	}
	b[0]++
	if _, _, err := ReadHeader(bytes.NewReader(b)); !errors.Is(err, ErrHeader) {
		t.Fatalf("a header with another beginning: %v, want ErrHeader", err)
	}
}

func TestBytesInTheWrongPlaceDoNotMatch(t *testing.T) {
	const seed = 99
	chunk := bytes.Clone(At(seed, 1<<20, 1000))
	if !Matches(seed, 1<<20, chunk) {
		t.Fatal("the pattern does not match itself")
	}
	// A lost, duplicated or swapped buffer would cause such offsets.
	for _, by := range []uint64{1, 16, 1000, 4 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 1 << 20} {
		if Matches(seed, 1<<20+by, chunk) {
			t.Errorf("bytes that are %d too early match", by)
		}
	}
	if Matches(seed+1, 1<<20, chunk) {
		t.Error("the bytes of another connection match")
	}
	chunk[500] ^= 1
	if Matches(seed, 1<<20, chunk) {
		t.Error("a flipped bit matches")
	}
}

func TestChunksOfAnySizeMatchAcrossThePeriod(t *testing.T) {
	var stream []byte
	for offset := uint64(0); offset < 3*period; offset += 1000 {
		stream = append(stream, At(5, offset, 1000)...)
	}
	if !Matches(5, 0, append(stream, At(5, uint64(len(stream)), MaxChunk)...)) {
		t.Fatal("a long stream does not match")
	}
}
