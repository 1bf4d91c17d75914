package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxDepth bounds the nesting of a file; the API needs about six levels.
const maxDepth = 64

// A rootNode is one document of a file, or one element of a document that is
// a list.
type rootNode struct {
	node   *yaml.Node
	number int // the document's number, from 1
}

// parseNodes returns the documents of src that are not empty. After a syntax error, the
// rest of the file is skipped.
func parseNodes(src Source, faults *Faults) []rootNode {
	bad := func(line int, format string, args ...any) {
		*faults = append(*faults, Fault{Place: Place{File: src.Name, Line: line}, Message: fmt.Sprintf(format, args...)})
	}
	if len(src.Data) > MaxSize {
		bad(0, "is larger than %d MiB", MaxSize>>20)
		return nil
	}
	data := bytes.TrimPrefix(src.Data, []byte("\xef\xbb\xbf"))
	next := yamlDocuments(data)
	if isJSON(src.Name, data) {
		next = jsonDocuments(data)
	}
	var roots []rootNode
	for number := 1; ; number++ {
		n, err := next()
		if err == io.EOF {
			return roots
		}
		if err != nil {
			line, text := splitLine(err)
			bad(line, "document %d: %s", number, text)
			return roots
		}
		switch {
		case n.Kind == yaml.SequenceNode:
			for _, item := range n.Content {
				roots = append(roots, rootNode{item, number})
			}
		case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
			// There are only comments between two "---".
		default:
			roots = append(roots, rootNode{n, number})
		}
	}
}

// isJSON reports whether to parse data as JSON. Not all JSON is valid YAML: escaped
// surrogates and tabs are not.
func isJSON(name string, data []byte) bool {
	if strings.HasSuffix(strings.ToLower(name), ".json") {
		return true
	}
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if len(trimmed) == 0 || trimmed[0] != '{' && trimmed[0] != '[' {
		return false
	}
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return err == io.EOF
		}
	}
}

// yamlDocuments returns a function that returns the next document, or io.EOF
// after the last.
func yamlDocuments(data []byte) func() (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	return func() (*yaml.Node, error) {
		var doc yaml.Node
		if err := dec.Decode(&doc); err != nil {
			return nil, err
		}
		if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}, nil
		}
		return doc.Content[0], nil
	}
}

var lineInError = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?((?s:.*))$`)

// splitLine splits a parser's error into line and text.
func splitLine(err error) (line int, text string) {
	m := lineInError.FindStringSubmatch(err.Error())
	line, _ = strconv.Atoi(m[1])
	if strings.HasPrefix(m[2], "unknown anchor") {
		// The parser's message quotes the word, which may be a passphrase.
		return line, "an alias (*) without an anchor; a text that begins with * must be in quotes"
	}
	return line, bounded(m[2])
}

// jsonDocuments is yamlDocuments for JSON.
func jsonDocuments(data []byte) func() (*yaml.Node, error) {
	p := jsonParser{dec: json.NewDecoder(bytes.NewReader(data))}
	for i, c := range data {
		if c == '\n' {
			p.newlines = append(p.newlines, int64(i))
		}
	}
	p.dec.UseNumber()
	return func() (*yaml.Node, error) {
		n, err := p.value(0)
		if err == nil || err == io.EOF {
			return n, err
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("ends in the middle of a value")
		}
		offset := p.dec.InputOffset()
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			offset = max(syntax.Offset-1, 0)
		}
		for offset < int64(len(data)) && strings.IndexByte(" \t\r\n", data[offset]) >= 0 {
			offset++ // some errors have the offset of the space before the faulty value
		}
		return nil, fmt.Errorf("line %d: %w", p.line(offset), err)
	}
}

// A jsonParser builds the same nodes as the YAML parser. encoding/json would lose line
// numbers and duplicate keys.
type jsonParser struct {
	dec      *json.Decoder
	newlines []int64 // the offsets of line breaks
}

func (p *jsonParser) line(offset int64) int {
	return 1 + sort.Search(len(p.newlines), func(i int) bool { return p.newlines[i] >= offset })
}

func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d levels deep", maxDepth)
	}
	tok, err := p.dec.Token()
	if err != nil {
		if err == io.EOF && depth > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.line(p.dec.InputOffset())}
	switch v := tok.(type) {
	case nil:
		n.Tag, n.Value = "!!null", "null"
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(v)
	case string:
		n.Tag, n.Value = "!!str", v
	case json.Number:
		n.Tag, n.Value = "!!int", v.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case json.Delim:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if v == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		// Within an object, More is also true before a value, so this loop reads keys
		// and values in turn.
		for p.dec.More() {
			child, err := p.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		if _, err := p.dec.Token(); err != nil { // the closing bracket
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return n, nil
}
