// Package fielddiff lists the fields in which two resources differ, without showing
// secrets.
//
// A Differ replaces each field that is marked debug_redact by a fingerprint. The key of
// the fingerprints is random and never leaves the Differ, so that a fingerprint cannot
// be used to guess a passphrase.
package fielddiff

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// maxValue bounds a value that is shown whole, in bytes.
const maxValue = 1 << 10

// A Differ compares resources. Its methods may be called concurrently.
type Differ struct{ key []byte }

// New returns a Differ with a new key.
func New() *Differ { return &Differ{key: []byte(rand.Text())} }

// Diff returns the fields in which two resources of one kind differ, in the order of
// their declaration. If one of them is nil, all fields of the other are returned.
// Output-only fields are left out.
func (d *Differ) Diff(before, after store.Resource) []*adminv1.FieldChange {
	w := walk{Differ: d}
	side := func(r store.Resource) protoreflect.Message {
		if r == nil {
			return nil
		}
		return store.WithoutOutput(r).ProtoReflect()
	}
	b, a := side(before), side(after)
	if b != nil || a != nil {
		w.message("", b, a)
	}
	return w.out
}

// A walk is one comparison.
type walk struct {
	*Differ
	out []*adminv1.FieldChange
}

// message compares two messages of one type. One of them may be nil.
func (w *walk) message(at invalid.Path, b, a protoreflect.Message) {
	fields := descriptorOf(b, a).Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		inB, inA := has(b, fd), has(a, fd)
		if !inB && !inA {
			continue
		}
		path := at.Field(string(fd.Name()))
		switch {
		case fd.IsMap():
			w.mapField(path, fd, valueOf(b, fd, inB), valueOf(a, fd, inA))
		case fd.IsList():
			w.list(path, fd, elements(b, fd, inB), elements(a, fd, inA))
		default:
			w.value(path, fd, valueOf(b, fd, inB), valueOf(a, fd, inA))
		}
	}
}

// value compares two values of a field, or elements of a list or map. An invalid
// value stands for a field that is not set.
func (w *walk) value(at invalid.Path, fd protoreflect.FieldDescriptor, b, a protoreflect.Value) {
	if !isMessage(fd) {
		w.leaf(at, fd, b, a)
		return
	}
	var mb, ma protoreflect.Message
	if b.IsValid() {
		mb = b.Message()
	}
	if a.IsValid() {
		ma = a.Message()
	}
	known := len(w.out)
	w.message(at, mb, ma)
	if len(w.out) == known && b.IsValid() != a.IsValid() { // an empty message was set or removed
		w.out = append(w.out, &adminv1.FieldChange{Path: string(at), Before: braces(b), After: braces(a)})
	}
}

func braces(v protoreflect.Value) string {
	if v.IsValid() {
		return "{}"
	}
	return ""
}

// list compares two lists. It leaves out equal elements at the beginning and at the
// end, and compares the others in pairs.
func (w *walk) list(at invalid.Path, fd protoreflect.FieldDescriptor, b, a []protoreflect.Value) {
	equal := func(x, y protoreflect.Value) bool { return x.Equal(y) }
	first := 0
	for len(b) > 0 && len(a) > 0 && equal(b[0], a[0]) {
		b, a, first = b[1:], a[1:], first+1
	}
	for len(b) > 0 && len(a) > 0 && equal(b[len(b)-1], a[len(a)-1]) {
		b, a = b[:len(b)-1], a[:len(a)-1]
	}
	for i := range max(len(b), len(a)) {
		var x, y protoreflect.Value
		if i < len(b) {
			x = b[i]
		}
		if i < len(a) {
			y = a[i]
		}
		w.value(at.Index(first+i), fd, x, y)
	}
}

func (w *walk) mapField(at invalid.Path, fd protoreflect.FieldDescriptor, b, a protoreflect.Value) {
	keys := map[string]protoreflect.MapKey{}
	for _, side := range []protoreflect.Value{b, a} {
		if side.IsValid() {
			side.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
				keys[k.String()] = k
				return true
			})
		}
	}
	get := func(side protoreflect.Value, k protoreflect.MapKey) protoreflect.Value {
		if !side.IsValid() {
			return protoreflect.Value{}
		}
		return side.Map().Get(k)
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		w.value(at.Key(name), fd.MapValue(), get(b, keys[name]), get(a, keys[name]))
	}
}

// leaf compares two values that are shown as a whole.
func (w *walk) leaf(at invalid.Path, fd protoreflect.FieldDescriptor, b, a protoreflect.Value) {
	before, after := text(fd, b), text(fd, a)
	if before == after {
		return
	}
	c := &adminv1.FieldChange{Path: string(at), Before: before, After: after}
	options, _ := fd.Options().(*descriptorpb.FieldOptions)
	switch {
	case options.GetDebugRedact():
		c.Fingerprints, c.Before, c.After = true, w.secret(before), w.secret(after)
	case len(before) > maxValue || len(after) > maxValue:
		c.Fingerprints, c.Before, c.After = true, digest(before), digest(after)
	}
	w.out = append(w.out, c)
}

// secret returns the fingerprint of a secret.
func (d *Differ) secret(value string) string {
	if value == "" {
		return ""
	}
	mac := hmac.New(sha256.New, d.key)
	mac.Write([]byte(value))
	return `"secret:` + hex.EncodeToString(mac.Sum(nil)[:8]) + `"`
}

// digest returns the fingerprint of a value that is too long to be shown.
func digest(value string) string {
	if value == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(value))
	return fmt.Sprintf(`"sha256:%x (%d bytes)"`, sum[:8], len(value))
}

// text returns a value as JSON, or "" if it is not set.
func text(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if !v.IsValid() {
		return ""
	}
	switch fd.Kind() {
	case protoreflect.MessageKind: // a well-known type, such as a duration
		out, err := protojson.Marshal(v.Message().Interface())
		if err != nil {
			return jsonOf(err.Error())
		}
		return string(out)
	case protoreflect.EnumKind:
		if ev := fd.Enum().Values().ByNumber(v.Enum()); ev != nil {
			return jsonOf(string(ev.Name()))
		}
		return fmt.Sprint(v.Enum())
	}
	return jsonOf(v.Interface())
}

func jsonOf(v any) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Sprintf("%q", err.Error())
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// isMessage reports whether the fields of a value are shown one by one.
func isMessage(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && fd.Message().ParentFile().Package() != "google.protobuf"
}

func descriptorOf(b, a protoreflect.Message) protoreflect.MessageDescriptor {
	if b != nil {
		return b.Descriptor()
	}
	return a.Descriptor()
}

func has(m protoreflect.Message, fd protoreflect.FieldDescriptor) bool { return m != nil && m.Has(fd) }

func valueOf(m protoreflect.Message, fd protoreflect.FieldDescriptor, set bool) protoreflect.Value {
	if !set {
		return protoreflect.Value{}
	}
	return m.Get(fd)
}

func elements(m protoreflect.Message, fd protoreflect.FieldDescriptor, set bool) []protoreflect.Value {
	if !set {
		return nil
	}
	list := m.Get(fd).List()
	out := make([]protoreflect.Value, list.Len())
	for i := range out {
		out[i] = list.Get(i)
	}
	return out
}

// Size returns the approximate size of changes in bytes.
func Size(changes []*adminv1.FieldChange) int {
	n := 0
	for _, c := range changes {
		n += proto.Size(c) + 4
	}
	return n
}
