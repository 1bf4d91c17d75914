package snapshot

import (
	"fmt"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// many returns a listener with n-1 upstreams and routes to them.
func many(n int) []store.Resource {
	rs := []store.Resource{listener("web", "127.0.0.1:1", httpP, "")}
	for i := range n - 1 {
		u := plaintext(fmt.Sprintf("u%d", i), 1)
		rs = append(rs, u, forward(fmt.Sprintf("r%d", i), prefix(fmt.Sprintf("/p%d/", i)), "web", u.Name))
	}
	return rs
}

// plaintext is an upstream whose TLS costs nothing.
func plaintext(name string, port int) *adminv1.Upstream {
	return &adminv1.Upstream{
		Name: name, Endpoints: []*adminv1.Endpoint{{Address: fmt.Sprintf("127.0.0.1:%d", port)}},
		Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}},
	}
}

// BenchmarkCompile measures the compile that a gateway runs once, when it
// starts.
func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("upstreams=%d", n), func(b *testing.B) {
			var bad invalid.List
			e := store.Edit{Puts: puts(many(n)...)}
			d := new(store.State).Edit(e, &bad)
			b.ReportAllocs()
			for b.Loop() {
				compile(Compiler{}, new(Snapshot), e, d, &bad)
			}
			if err := bad.Err(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// A typical write changes one upstream among n.
func BenchmarkCompileOneChange(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("upstreams=%d", n), func(b *testing.B) {
			var bad invalid.List
			e := store.Edit{Puts: puts(many(n)...)}
			d := new(store.State).Edit(e, &bad)
			snap := compile(Compiler{}, new(Snapshot), e, d, &bad)
			if err := bad.Err(); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e := store.Edit{Puts: puts(plaintext("one", i%60000+1))}
				d := snap.State().Edit(e, &bad)
				compile(Compiler{}, snap, e, d, &bad)
			}
		})
	}
}
