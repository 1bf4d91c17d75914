package l4_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
)

// Allocations include the whole process: client, gate and upstream.
func BenchmarkSplice(b *testing.B) {
	p := newPKI(b)
	far := listen(b, "tcp")
	echo(b, far, p.server(b, "upstream.test"))
	farPlain := listen(b, "tcp")
	echo(b, farPlain, nil)
	for name, table := range map[string]*l4.Table{
		"plain to plain": {Default: to(group(plain(farPlain)))},
		"plain to TLS":   {Default: to(group(over(b, far, p.upstream(b, "upstream.test"))))},
	} {
		for _, size := range []int{64, 16 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s, %d bytes there and back", name, size), func(b *testing.B) {
				c := serve(b, table).dial(b, nil)
				sent, got := make([]byte, size), make([]byte, size)
				b.SetBytes(int64(2 * size))
				b.ReportAllocs()
				wrote := make(chan error, 1)
				send := func() { _, err := c.Write(sent); wrote <- err }
				for b.Loop() {
					if size > 16<<10 { // the kernel accepts a smaller message at once
						go send()
					} else {
						send()
					}
					if _, err := io.ReadFull(c, got); err != nil {
						b.Fatal(err)
					}
					if err := <-wrote; err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
