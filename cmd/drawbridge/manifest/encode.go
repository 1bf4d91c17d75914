package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// MarshalJSON returns m as indented protojson. Unlike protojson's own, its spacing is
// stable.
func MarshalJSON(m proto.Message) ([]byte, error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// MarshalYAML returns m as a YAML document with the fields and the order of
// its JSON.
func MarshalYAML(m proto.Message) ([]byte, error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	return YAMLFromJSON(raw)
}

// YAMLFromJSON returns a JSON value as a YAML document, in the same order.
func YAMLFromJSON(text []byte) ([]byte, error) {
	n, err := jsonDocuments(text)()
	if err != nil {
		return nil, err
	}
	return encodeNode(n)
}

// WriteYAML writes resources as documents that Parse reads, separated by "---".
func WriteYAML(w io.Writer, resources []*adminv1.Resource) error {
	for i, r := range resources {
		doc, err := DocumentJSON(r)
		if err != nil {
			return err
		}
		text, err := YAMLFromJSON(doc)
		if err != nil {
			return err
		}
		if i > 0 {
			text = append([]byte("---\n"), text...)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// DocumentJSON returns r as a JSON object that Parse reads.
func DocumentJSON(r *adminv1.Resource) (json.RawMessage, error) {
	body := Body(r)
	if body == nil {
		return nil, fmt.Errorf("this version does not know the kind of the resource")
	}
	raw, err := protojson.Marshal(body)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"kind":%q`, body.ProtoReflect().Descriptor().Name())
	if rest := bytes.TrimSpace(raw[1:]); !bytes.Equal(rest, []byte("}")) {
		out.WriteByte(',')
		out.Write(rest)
	} else {
		out.WriteByte('}')
	}
	return out.Bytes(), nil
}

// Desired returns a copy of r without output-only fields. The copy can be written to
// a gateway.
func Desired(r *adminv1.Resource) *adminv1.Resource {
	r = proto.CloneOf(r)
	body := Body(r)
	if body == nil {
		return r
	}
	m := body.ProtoReflect()
	for _, name := range []protoreflect.Name{"etag", "revision", "info"} {
		if fd := m.Descriptor().Fields().ByName(name); fd != nil {
			m.Clear(fd)
		}
	}
	return r
}

func encodeNode(n *yaml.Node) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
