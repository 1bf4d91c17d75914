package gateway

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A messageFiller fills messages like a confused or hostile client.
type messageFiller struct {
	*rand.Rand
	texts  []string
	filled *fieldSet
}

// A fieldSet holds fields. Its methods may be called concurrently.
type fieldSet struct {
	mu     sync.Mutex
	fields map[protoreflect.FullName]bool
}

func (s *fieldSet) add(f protoreflect.FieldDescriptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fields[f.FullName()] = true
}

// fieldsBelow adds the fields of a message to all, at any depth.
func fieldsBelow(m protoreflect.MessageDescriptor, all map[protoreflect.FullName]bool) {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if all[f.FullName()] {
			continue
		}
		all[f.FullName()] = true
		if below := f.Message(); below != nil && !f.IsMap() {
			fieldsBelow(below, all)
		}
	}
}

// maxGuess bounds the depth of messages.
const maxGuess = 6

// fill sets random fields of m, and always its name.
func (g *messageFiller) fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if g.IntN(3) > 0 && f.Name() != "name" || f.Message() != nil && depth == maxGuess {
			continue
		}
		g.filled.add(f)
		switch {
		case f.IsMap():
			entries := m.Mutable(f).Map()
			entries.Set(protoreflect.ValueOfString(g.text()).MapKey(), protoreflect.ValueOfString(g.text()))
		case f.IsList():
			list := m.Mutable(f).List()
			for range g.IntN(3) {
				if f.Message() != nil {
					e := list.NewElement()
					g.fill(e.Message(), depth+1)
					list.Append(e)
				} else {
					list.Append(g.scalar(f))
				}
			}
		case f.Message() != nil:
			g.fill(m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, g.scalar(f))
		}
	}
}

func (g *messageFiller) text() string { return g.texts[g.IntN(len(g.texts))] }

func (g *messageFiller) scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	number := []int64{0, 1, 2, 80, 443, 1000, -1, 1 << 31 >> 1, -1 << 31}[g.IntN(9)]
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(g.text())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(g.text()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(g.IntN(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(g.IntN(f.Enum().Values().Len() + 1)))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(number))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(number)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(number) / 3)
	}
	panic(fmt.Sprintf("a field of kind %v", f.Kind()))
}

// within returns m and the messages in it, at any depth, except output-only ones.
func within(m protoreflect.Message) []protoreflect.Message {
	all := []protoreflect.Message{m}
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		switch {
		case f.Message() == nil || f.IsMap() || outputOnly(f) || !m.Has(f):
		case f.IsList():
			for i := range m.Get(f).List().Len() {
				all = append(all, within(m.Get(f).List().Get(i).Message())...)
			}
		default:
			all = append(all, within(m.Get(f).Message())...)
		}
	}
	return all
}

// outputOnly reports whether a field of a resource is output only. A write may hold
// anything there, because clients write back what they have read.
func outputOnly(f protoreflect.FieldDescriptor) bool {
	return f.ContainingMessage().Fields().ByName("etag") != nil && (f.Name() == "revision" || f.Name() == "info")
}

// spoil adds something invalid to a random message within m: an unknown field, an
// unknown enum value, or a negative number.
func (g *messageFiller) spoil(m protoreflect.Message) {
	all := within(m)
	at := all[g.IntN(len(all))]
	if fields := at.Descriptor().Fields(); g.IntN(2) == 0 && at.Descriptor().ParentFile().Package() != "google.protobuf" {
		for _, i := range g.Perm(fields.Len()) {
			f := fields.Get(i)
			if f.IsList() || f.IsMap() || outputOnly(f) {
				continue
			}
			switch f.Kind() {
			case protoreflect.EnumKind:
				at.Set(f, protoreflect.ValueOfEnum(9999))
				return
			case protoreflect.Int32Kind:
				at.Set(f, protoreflect.ValueOfInt32(-7))
				return
			case protoreflect.Int64Kind:
				at.Set(f, protoreflect.ValueOfInt64(-7))
				return
			}
		}
	}
	unknown := protowire.AppendTag(at.GetUnknown(), protowire.Number(900+g.IntN(1000)), protowire.BytesType)
	at.SetUnknown(protowire.AppendString(unknown, g.text()))
}
