package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
)

// WordsJSON returns m as JSON with protojson's field names. Enum values have no prefix
// ("NAME_MISMATCH"; "" for the unspecified one). It writes every field except unset
// messages, so that a script need not distinguish missing and empty fields. Keys of maps
// are sorted.
func WordsJSON(m proto.Message) ([]byte, error) {
	var out bytes.Buffer
	if err := writeObject(&out, m.ProtoReflect()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func writeObject(out *bytes.Buffer, m protoreflect.Message) error {
	if isWellKnown(m.Descriptor()) { // a string in JSON
		text, err := protojson.Marshal(m.Interface())
		out.Write(text)
		return err
	}
	out.WriteByte('{')
	first := true
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		if fd.HasPresence() && !m.Has(fd) {
			continue
		}
		if !first {
			out.WriteByte(',')
		}
		first = false
		fmt.Fprintf(out, "%q:", fd.JSONName())
		if err := writeField(out, fd, m.Get(fd)); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

func writeField(out *bytes.Buffer, fd protoreflect.FieldDescriptor, v protoreflect.Value) error {
	if fd.IsMap() {
		return writeMap(out, fd.MapValue(), v.Map())
	}
	if !fd.IsList() {
		return writeValue(out, fd, v)
	}
	out.WriteByte('[')
	for i := range v.List().Len() {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := writeValue(out, fd, v.List().Get(i)); err != nil {
			return err
		}
	}
	out.WriteByte(']')
	return nil
}

// writeMap writes a map as an object. value is the descriptor of the map's values.
func writeMap(out *bytes.Buffer, value protoreflect.FieldDescriptor, m protoreflect.Map) error {
	byKey := map[string]protoreflect.Value{}
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		byKey[k.String()] = v
		return true
	})
	out.WriteByte('{')
	for i, key := range slices.Sorted(maps.Keys(byKey)) {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := writeJSON(out, key); err != nil {
			return err
		}
		out.WriteByte(':')
		if err := writeValue(out, value, byKey[key]); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

func writeValue(out *bytes.Buffer, fd protoreflect.FieldDescriptor, v protoreflect.Value) error {
	var value any
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return writeObject(out, v.Message())
	case protoreflect.EnumKind:
		value = enumWord(fd.Enum(), v.Enum())
	case protoreflect.Int64Kind: // a string, as in protojson: a JSON number may lose digits
		value = fmt.Sprint(v.Int())
	default:
		value = v.Interface()
	}
	return writeJSON(out, value)
}

func writeJSON(out *bytes.Buffer, value any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return err
	}
	out.Write(bytes.TrimSuffix(text.Bytes(), []byte("\n")))
	return nil
}

// enumWord is like Word, but returns "" for zero.
func enumWord(enum protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	ev := enum.Values().ByNumber(n)
	switch {
	case n == 0:
		return ""
	case ev == nil:
		return fmt.Sprint(n)
	}
	return string(ev.Name())[len(manifest.EnumPrefix(enum)):]
}

func isWellKnown(desc protoreflect.MessageDescriptor) bool {
	return desc.ParentFile().Package() == "google.protobuf"
}

// WriteWords writes m in the form of WordsJSON, indented, or as YAML.
func WriteWords(w io.Writer, f Format, m proto.Message) error {
	text, err := WordsJSON(m)
	if err != nil {
		return err
	}
	if f == YAML {
		yaml, err := manifest.YAMLFromJSON(text)
		if err != nil {
			return err
		}
		_, err = w.Write(yaml)
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err = w.Write(out.Bytes())
	return err
}

// Word returns the name of an enum's value without its prefix: HTTP for PROTOCOL_HTTP.
// For a value without a name it returns the number.
func Word(v protoreflect.Enum) string {
	if v.Number() == 0 {
		return "UNSPECIFIED"
	}
	return enumWord(v.Descriptor(), v.Number())
}

// Lower is Word in lower case.
func Lower(v protoreflect.Enum) string { return strings.ToLower(Word(v)) }
