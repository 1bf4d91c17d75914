package fileroot

import (
	"path/filepath"
	"strings"
	"testing"
)

func BenchmarkReadAPair(b *testing.B) {
	dir := b.TempDir()
	chain, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for _, path := range []string{chain, key} {
		write(b, path, strings.Repeat("x", 2000))
	}
	roots := Roots{"/etc/drawbridge", "/var/lib/drawbridge", dir}
	b.ReportAllocs()
	for b.Loop() {
		if f := roots.ReadAll(chain, key); f[0].Err != nil || f[1].Err != nil {
			b.Fatal(f)
		}
	}
}
