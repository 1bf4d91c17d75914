package manifest

import (
	"go.yaml.in/yaml/v3"
)

// maxAliased bounds how many nodes the aliases of one document may expand to. It
// protects against a "billion laughs" file.
const maxAliased = 100_000

// expand returns a copy of n with aliases and merge keys (<<) expanded. Every mapping in
// it has unique string keys. It returns nil after a fault that makes n unusable.
func (d *decoder) expand(n *yaml.Node, path string, depth int, aliased bool) *yaml.Node {
	if depth > maxDepth {
		// This also ends a cycle of aliases.
		d.fault(n, "", "nested more than %d levels deep", maxDepth)
		return nil
	}
	if aliased {
		if d.aliased--; d.aliased < 0 {
			if d.aliased == -1 {
				d.fault(n, "", "its aliases stand for more than %d values", maxAliased)
			}
			return nil
		}
	}
	switch n.Kind {
	case yaml.AliasNode:
		return d.expand(n.Alias, path, depth+1, true)
	case yaml.SequenceNode:
		out := *n
		out.Content = make([]*yaml.Node, 0, len(n.Content))
		for i, child := range n.Content {
			c := d.expand(child, index(path, i), depth+1, aliased)
			if c == nil {
				return nil
			}
			out.Content = append(out.Content, c)
		}
		return &out
	case yaml.MappingNode:
		return d.expandMapping(n, path, depth, aliased)
	}
	return n
}

func (d *decoder) expandMapping(n *yaml.Node, path string, depth int, aliased bool) *yaml.Node {
	out := *n
	out.Content = make([]*yaml.Node, 0, len(n.Content))
	lines := make(map[string]int) // the lines of the mapping's own keys
	var merged []*yaml.Node       // mappings whose keys are merged
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			d.fault(key, path, "a field's name must be a word, not %s", describe(key))
			return nil
		}
		field := join(path, key.Value)
		merge := key.ShortTag() == "!!merge"
		if first, dup := lines[key.Value]; dup && !merge {
			d.fault(key, field, "is given twice; first in line %d", first)
			continue
		}
		lines[key.Value] = key.Line
		value := d.expand(n.Content[i+1], field, depth+1, aliased)
		if value == nil {
			return nil
		}
		if !merge {
			out.Content = append(out.Content, key, value)
			continue
		}
		switch value.Kind {
		case yaml.MappingNode:
			merged = append(merged, value)
		case yaml.SequenceNode:
			merged = append(merged, value.Content...)
		default:
			d.fault(value, field, "must be a mapping to merge, not %s", describe(value))
		}
	}
	// The mapping's own keys take precedence over merged keys, and earlier mappings over
	// later ones (yaml.org/type/merge.html).
	for _, m := range merged {
		if m.Kind != yaml.MappingNode {
			d.fault(m, join(path, "<<"), "must be a mapping to merge, not %s", describe(m))
			continue
		}
		for i := 0; i+1 < len(m.Content); i += 2 {
			if _, have := lines[m.Content[i].Value]; !have {
				lines[m.Content[i].Value] = m.Content[i].Line
				out.Content = append(out.Content, m.Content[i], m.Content[i+1])
			}
		}
	}
	return &out
}
