package l7

import "sync"

// A pooled lends things that are used again. The zero value is ready to use.
type pooled[T any] struct{ pool sync.Pool }

func (p *pooled[T]) get() *T {
	if t, ok := p.pool.Get().(*T); ok {
		return t
	}
	return new(T)
}

func (p *pooled[T]) put(t *T) { p.pool.Put(t) }
