package flame

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// A node is a function in one chain of callers.
type node struct {
	name  string
	total int64 // CPU time of the function and of all that it calls
	flat  int64 // CPU time of the function itself
	calls map[string]*node
}

func newNode(name string) *node { return &node{name: name, calls: map[string]*node{}} }

// treeOf returns the root of the calls in a profile. Its last value is the CPU time.
func treeOf(p *profile.Profile) *node {
	root := newNode("all")
	for _, s := range p.Sample {
		value := s.Value[len(s.Value)-1]
		at := root
		at.total += value
		for _, location := range slices.Backward(s.Location) {
			for _, line := range slices.Backward(location.Line) { // inlined functions come first
				at = at.call(short(line.Function.Name))
				at.total += value
			}
		}
		at.flat += value
	}
	return root
}

func (n *node) call(name string) *node {
	c := n.calls[name]
	if c == nil {
		c = newNode(name)
		n.calls[name] = c
	}
	return c
}

// ordered returns the functions that n calls, the most expensive first.
func (n *node) ordered() []*node {
	return slices.SortedFunc(maps.Values(n.calls), func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.total, a.total), strings.Compare(a.name, b.name))
	})
}

const module = "github.com/drawbridge-gateway/drawbridge/"

// short returns the name of a function without the module's path and without type arguments.
func short(name string) string {
	name = strings.TrimPrefix(name, module)
	if i := strings.IndexByte(name, '['); i >= 0 {
		if j := strings.LastIndexByte(name, ']'); j > i {
			name = name[:i] + name[j+1:]
		}
	}
	return name
}

// An Owner is the origin of a function's code.
type Owner int

// The owners, in the order of a legend.
const (
	Kernel Owner = iota // system calls
	Cryptography
	Runtime // scheduler, collector, memory
	Libraries
	Drawbridge
	owners
)

// String returns the owner's name in a legend.
func (o Owner) String() string {
	return [...]string{"system calls", "cryptography", "Go runtime", "libraries", "Drawbridge"}[o]
}

func ownerOf(name string) Owner {
	starts := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	switch {
	case starts("internal/runtime/syscall", "syscall.", "runtime/internal/syscall", "golang.org/x/sys"):
		return Kernel
	case starts("crypto/internal/fips140/", "crypto/aes", "crypto/sha", "crypto/internal/", "math/big", "golang.org/x/crypto", "vendor/golang.org/x/crypto"):
		return Cryptography
	case starts("runtime.", "runtime/", "internal/runtime", "sync.", "sync/", "internal/sync", "internal/bytealg", "memeqbody", "aeshashbody", "gogo", "cmpbody", "indexbytebody"):
		return Runtime
	case starts("bridge", "certs", "gateway", "cmd/drawbridge", "main."):
		return Drawbridge
	}
	return Libraries
}

// Shares returns the fraction of the CPU time that the functions of each owner took themselves.
func Shares(p *profile.Profile) []float64 {
	root := treeOf(p)
	out := make([]float64, owners)
	if root.total == 0 {
		return out
	}
	var add func(*node)
	add = func(n *node) {
		out[ownerOf(n.name)] += float64(n.flat) / float64(root.total)
		for _, c := range n.calls {
			add(c)
		}
	}
	add(root)
	return out
}
