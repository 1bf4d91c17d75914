package manifest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// A decoder fills the message of one document and collects the faults in it.
type decoder struct {
	place   Place
	faults  *Faults
	aliased int // the number of nodes that aliases may still expand to
}

func (d *decoder) fault(n *yaml.Node, field, format string, args ...any) {
	place := d.place
	if n.Line > 0 {
		place.Line = n.Line
	}
	*d.faults = append(*d.faults, Fault{Place: place, Field: field, Message: fmt.Sprintf(format, args...)})
}

// message fills m from mapping n.
func (d *decoder) message(m protoreflect.Message, n *yaml.Node, path string) {
	if !d.wants(n, yaml.MappingNode, path, "a mapping of fields") {
		return
	}
	desc := m.Descriptor()
	given := make(map[protoreflect.FieldNumber]bool)
	oneofs := make(map[protoreflect.Name]string)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		field := join(path, key.Value)
		fd := fieldNamed(desc, key.Value)
		if fd == nil {
			if len(key.Value) > longestShown {
				field = join(path, fmt.Sprintf("(a name of %d bytes)", len(key.Value)))
			}
			d.unknownField(desc, key, field)
			continue
		}
		if given[fd.Number()] {
			d.fault(key, field, "is given twice, as %s and as %s", fd.JSONName(), fd.Name())
			continue
		}
		given[fd.Number()] = true
		if one := fd.ContainingOneof(); one != nil && !one.IsSynthetic() {
			if other, taken := oneofs[one.Name()]; taken {
				d.fault(key, field, "cannot be combined with %s: only one of them may be set", other)
				continue
			}
			oneofs[one.Name()] = key.Value
		}
		d.field(m, fd, value, field)
	}
}

func (d *decoder) unknownField(desc protoreflect.MessageDescriptor, key *yaml.Node, field string) {
	var names []string
	for i := range desc.Fields().Len() {
		names = append(names, desc.Fields().Get(i).JSONName())
	}
	switch near := nearest(key.Value, names); {
	case near != "":
		d.fault(key, field, "no such field; did you mean %s?", near)
	case len(names) == 0:
		d.fault(key, field, "no such field; %s has no fields", desc.Name())
	default:
		d.fault(key, field, "no such field; %s has %s", desc.Name(), strings.Join(names, ", "))
	}
}

func (d *decoder) field(m protoreflect.Message, fd protoreflect.FieldDescriptor, n *yaml.Node, path string) {
	switch {
	case fd.IsMap():
		if !d.wants(n, yaml.MappingNode, path, "a mapping") {
			return
		}
		entries := m.Mutable(fd).Map()
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if v, ok := d.scalar(fd.MapValue(), value, join(path, key.Value)); ok {
				entries.Set(protoreflect.ValueOfString(key.Value).MapKey(), v)
			}
		}
	case fd.IsList():
		if !d.wants(n, yaml.SequenceNode, path, "a list") {
			return
		}
		list := m.Mutable(fd).List()
		for i, item := range n.Content {
			if isNested(fd) {
				d.message(list.AppendMutable().Message(), item, index(path, i))
			} else if v, ok := d.scalar(fd, item, index(path, i)); ok {
				list.Append(v)
			}
		}
	case isNested(fd):
		d.message(m.Mutable(fd).Message(), n, path)
	default:
		if v, ok := d.scalar(fd, n, path); ok {
			m.Set(fd, v)
		}
	}
}

// wants reports whether n is of the kind, and adds a fault if not. It deliberately
// rejects null instead of treating it as absent: if all lines under "tls:" of a
// listener are commented out, the listener must not become a plaintext listener.
func (d *decoder) wants(n *yaml.Node, kind yaml.Kind, path, description string) bool {
	switch {
	case n.Kind == kind:
		return true
	case isNull(n) && kind == yaml.MappingNode:
		d.fault(n, path, "has no value; write {} for every default, or leave it out")
	case isNull(n):
		d.fault(n, path, "has no value; write [] or leave it out")
	default:
		d.fault(n, path, "must be %s, not %s", description, describe(n))
	}
	return false
}

// scalar returns the value of n for fd, or for one of its elements.
func (d *decoder) scalar(fd protoreflect.FieldDescriptor, n *yaml.Node, path string) (protoreflect.Value, bool) {
	if isNull(n) {
		d.fault(n, path, "has no value; give it one or leave it out")
		return protoreflect.Value{}, false
	}
	v, want := scalarValue(fd, n)
	switch {
	case want == "":
		return v, true
	case isSecret(fd):
		d.fault(n, path, "must be %s", want)
	default:
		d.fault(n, path, "must be %s, not %s", want, describe(n))
	}
	return v, false
}

// isSecret reports whether the value of the field is secret, so faults must
// never quote it.
func isSecret(fd protoreflect.FieldDescriptor) bool {
	options, ok := fd.Options().(*descriptorpb.FieldOptions)
	return ok && options.GetDebugRedact()
}

// scalarValue returns the value of n, or a description of a valid value.
func scalarValue(fd protoreflect.FieldDescriptor, n *yaml.Node) (v protoreflect.Value, want string) {
	tag, scalar := n.ShortTag(), n.Kind == yaml.ScalarNode
	switch fd.Kind() {
	case protoreflect.StringKind:
		switch {
		case scalar && tag == "!!str":
			return protoreflect.ValueOfString(n.Value), ""
		case isSecret(fd):
			return v, "a string, in quotes"
		case scalar:
			return v, "a string (written " + strconv.Quote(bounded(n.Value)) + ")"
		}
		return v, "a string"
	case protoreflect.BoolKind:
		var b bool
		if scalar && tag == "!!bool" && n.Decode(&b) == nil {
			return protoreflect.ValueOfBool(b), ""
		}
		return v, "true or false"
	case protoreflect.BytesKind:
		if scalar && (tag == "!!str" || tag == "!!binary") {
			if data, ok := fromBase64(n.Value); ok {
				return protoreflect.ValueOfBytes(data), ""
			}
		}
		return v, "base64"
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return number(fd, n)
	case protoreflect.EnumKind:
		if scalar {
			if ev := enumValue(fd.Enum(), n.Value); ev != nil {
				return protoreflect.ValueOfEnum(ev.Number()), ""
			}
		}
		want := "one of " + strings.Join(enumNames(fd.Enum()), ", ")
		if fd.Enum().FullName() == tlsVersionName && strings.HasPrefix(strings.ToUpper(n.Value), "SSL") {
			want += ", because SSLv2 and SSLv3 are broken (RFC 6176, RFC 7568) and not supported"
		}
		return v, want
	case protoreflect.MessageKind: // all other messages are nested
		if fd.Message().FullName() == timestampName {
			var t timestamppb.Timestamp
			if scalar && unmarshalText(n.Value, &t) {
				return protoreflect.ValueOfMessage(t.ProtoReflect()), ""
			}
			return v, "a time such as 2006-01-02T15:04:05Z"
		}
		if scalar && tag == "!!str" {
			if dur := duration(n.Value); dur != nil {
				return protoreflect.ValueOfMessage(dur.ProtoReflect()), ""
			}
		}
		return v, "a duration such as 30s, 1.5s or 2m"
	}
	return v, "of a type that files cannot hold"
}

// number parses a whole number. The API has no negative numbers.
func number(fd protoreflect.FieldDescriptor, n *yaml.Node) (v protoreflect.Value, want string) {
	bits := 64
	if fd.Kind() == protoreflect.Int32Kind {
		bits = 32
	}
	want = fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<(bits-1)-1)
	if n.Kind != yaml.ScalarNode {
		return v, want
	}
	var i int64
	switch n.ShortTag() {
	case "!!int":
		if n.Decode(&i) != nil {
			return v, want
		}
	case "!!str": // protojson writes 64-bit integers as strings
		var err error
		if i, err = strconv.ParseInt(n.Value, 10, bits); err != nil {
			return v, want
		}
	default:
		return v, want
	}
	switch {
	case i < 0 || i > int64(1)<<(bits-1)-1:
		return v, want
	case bits == 32:
		return protoreflect.ValueOfInt32(int32(i)), ""
	}
	return protoreflect.ValueOfInt64(i), ""
}

// fromBase64 accepts protojson's encodings and the line breaks of base64(1).
func fromBase64(text string) ([]byte, bool) {
	text = strings.TrimRight(strings.Join(strings.Fields(text), ""), "=")
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(text, "-_") {
		encoding = base64.RawURLEncoding
	}
	data, err := encoding.DecodeString(text)
	return data, err == nil
}

// enumValue finds a value by its name, with or without the enum's prefix, in any
// case: PROTOCOL_HTTP, HTTP, http; TLS_VERSION_1_2, 1.2, and TLSv1.2, the name in
// nginx and OpenSSL. It rejects enum numbers: the HTTP version 2 would mean
// HTTP_PROTOCOL_1_1.
func enumValue(enum protoreflect.EnumDescriptor, text string) protoreflect.EnumValueDescriptor {
	name := strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(text))
	if enum.FullName() == tlsVersionName {
		if name == "TLSV1" {
			name = "TLSV1_0"
		}
		name = strings.TrimPrefix(name, "TLSV")
	}
	if ev := enum.Values().ByName(protoreflect.Name(name)); ev != nil {
		return ev
	}
	return enum.Values().ByName(protoreflect.Name(EnumPrefix(enum) + name))
}

// EnumPrefix returns the common prefix of all values of enum: "PROTOCOL_".
func EnumPrefix(enum protoreflect.EnumDescriptor) string {
	return strings.TrimSuffix(string(enum.Values().ByNumber(0).Name()), "UNSPECIFIED")
}

func enumNames(enum protoreflect.EnumDescriptor) []string {
	var names []string
	for i := range enum.Values().Len() {
		if ev := enum.Values().Get(i); ev.Number() != 0 {
			names = append(names, strings.TrimPrefix(string(ev.Name()), EnumPrefix(enum)))
		}
	}
	return names
}

// duration accepts protojson's form ("90s") and Go's ("1m30s").
func duration(text string) *durationpb.Duration {
	var d durationpb.Duration
	if unmarshalText(text, &d) {
		return &d
	}
	if g, err := time.ParseDuration(text); err == nil {
		return durationpb.New(g)
	}
	return nil
}

// unmarshalText reads a message whose JSON is a string.
func unmarshalText(text string, m proto.Message) bool {
	quoted, err := json.Marshal(text)
	return err == nil && protojson.Unmarshal(quoted, m) == nil
}

// fieldNamed finds a field by its JSON or its proto name.
func fieldNamed(desc protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := desc.Fields().ByJSONName(name); fd != nil {
		return fd
	}
	return desc.Fields().ByName(protoreflect.Name(name))
}

const (
	durationName   = "google.protobuf.Duration"
	timestampName  = "google.protobuf.Timestamp"
	tlsVersionName = "drawbridge.admin.v1.TlsVersion"
)

// isNested reports whether fd holds messages that are mappings in JSON.
func isNested(fd protoreflect.FieldDescriptor) bool {
	return fd.Kind() == protoreflect.MessageKind && fd.Message().FullName() != durationName && fd.Message().FullName() != timestampName
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// longestShown bounds the names and values that a fault quotes. A longer one may be a
// line of a misplaced key.
const longestShown = 40

// describe returns the value of n, or its type if the value is not a short scalar.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	case len(n.Value) > longestShown || strings.Contains(n.Value, "\n"):
		return "a string of " + strconv.Itoa(len(n.Value)) + " bytes"
	case n.ShortTag() == "!!str":
		return quote(n.Value)
	}
	return bounded(n.Value)
}

func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
