package manifest

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Locate translates a path in an ApplyRequest with m.Resources, such as
// "resources[3].upstream.endpoints[0].address", to its place in the files and to its
// spelling there. The place of a field that the files omit is its parent's. ok is false
// if the path does not refer to m's resources.
func (m *Manifest) Locate(path string) (place Place, field string, ok bool) {
	steps := splitPath(path)
	if len(steps) < 2 || steps[0] != "resources" {
		return Place{}, "", false
	}
	i, err := strconv.Atoi(steps[1])
	if err != nil || i < 0 || i >= len(m.Documents) {
		return Place{}, "", false
	}
	doc := &m.Documents[i]
	place = doc.Place
	if len(steps) < 4 { // the path of the resource itself
		return place, "", true
	}
	line, field := walk(doc.node, Body(doc.Resource).ProtoReflect().Descriptor(), steps[3:])
	if line > 0 {
		place.Line = line
	}
	return place, field, true
}

// walk follows steps from mapping n as far as they exist. It returns the line that it
// reached and the steps in the file's spelling.
func walk(n *yaml.Node, desc protoreflect.MessageDescriptor, steps []string) (line int, path string) {
	for _, step := range steps {
		var next *yaml.Node
		var fd protoreflect.FieldDescriptor
		if desc != nil {
			fd = fieldNamed(desc, step)
		}
		switch {
		case n == nil:
			// Not in the file: only translate the spelling.
		case n.Kind == yaml.SequenceNode:
			if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
				next = n.Content[i]
				line = next.Line
			}
		case n.Kind == yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				key := n.Content[i]
				if key.Value == step || fd != nil && (key.Value == fd.JSONName() || key.Value == string(fd.Name())) {
					next, line, step = n.Content[i+1], key.Line, key.Value
				}
			}
		}
		if next == nil && fd != nil {
			step = fd.JSONName()
		}
		if _, err := strconv.Atoi(step); err == nil {
			path += "[" + step + "]"
		} else {
			path = join(path, step)
		}
		n = next
		if fd != nil {
			desc = nil
			if fd.Kind() == protoreflect.MessageKind && !fd.IsMap() {
				desc = fd.Message()
			}
		}
	}
	return line, path
}

// splitPath splits `a[3].b["k.l"]` into a, 3, b, k.l.
func splitPath(path string) []string {
	var steps []string
	for path != "" {
		switch {
		case path[0] == '.':
			path = path[1:]
		case strings.HasPrefix(path, `["`):
			quoted, err := strconv.QuotedPrefix(path[1:])
			if err != nil {
				return append(steps, path)
			}
			key, _ := strconv.Unquote(quoted)
			steps = append(steps, key)
			path = strings.TrimPrefix(path[1+len(quoted):], "]")
		case path[0] == '[':
			step, rest, _ := strings.Cut(path[1:], "]")
			steps = append(steps, step)
			path = rest
		default:
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			steps = append(steps, path[:end])
			path = path[end:]
		}
	}
	return steps
}
