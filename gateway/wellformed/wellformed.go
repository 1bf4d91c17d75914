// Package wellformed rejects messages with fields or values that this version of the API
// does not know.
//
// Otherwise a gateway that is older than its client would silently drop a new field, and
// with it a restriction that the client relies on. The package only reads messages; the
// caller owns them.
package wellformed

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
)

// maxFaults bounds how many faults one check reports: a message of 16 MiB can hold
// millions.
const maxFaults = 256

// Check adds a fault to bad for each unknown field, each enum value without a
// name and each negative number, at any depth of m. The paths begin at p. No
// number of the API may be negative. Messages for which skip returns true are
// left out; skip may be nil.
func Check(m protoreflect.Message, p invalid.Path, skip func(protoreflect.Message) bool, bad *invalid.List) {
	c := checker{skip: skip, bad: bad}
	c.message(m, p)
}

type checker struct {
	skip   func(protoreflect.Message) bool
	bad    *invalid.List
	faults int
}

func (c *checker) add(p invalid.Path, format string, args ...any) {
	if c.faults++; c.faults <= maxFaults {
		c.bad.Add(p, format, args...)
	}
}

func (c *checker) message(m protoreflect.Message, p invalid.Path) {
	if c.skip != nil && c.skip(m) {
		return
	}
	c.unknown(m.GetUnknown(), p)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if !f.IsMap() && !checked(f) {
			return true // the list may have ten thousand names
		}
		at := p.Field(string(f.Name()))
		switch {
		case f.IsList():
			for i := range v.List().Len() {
				c.value(f, v.List().Get(i), at.Index(i))
			}
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				c.value(f.MapValue(), v, at.Key(k.String()))
				return c.faults < maxFaults
			})
		default:
			c.value(f, v, at)
		}
		return c.faults < maxFaults
	})
}

// checked reports whether value can find a fault in a value of the field.
func checked(f protoreflect.FieldDescriptor) bool {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.EnumKind, protoreflect.Int32Kind, protoreflect.Int64Kind:
		return true
	}
	return false
}

func (c *checker) value(f protoreflect.FieldDescriptor, v protoreflect.Value, p invalid.Path) {
	switch f.Kind() {
	case protoreflect.MessageKind:
		// Durations have their own rules and are checked where they are used.
		if f.Message().ParentFile().Package() != "google.protobuf" {
			c.message(v.Message(), p)
		} else {
			c.unknown(v.Message().GetUnknown(), p)
		}
	case protoreflect.EnumKind:
		if f.Enum().Values().ByNumber(v.Enum()) == nil {
			c.add(p, "is %d, which this version does not know", v.Enum())
		}
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		if v.Int() < 0 {
			c.add(p, "is %d; it must not be negative", v.Int())
		}
	}
}

// unknown adds a fault for each field number in raw, which protobuf has parsed.
func (c *checker) unknown(raw protoreflect.RawFields, p invalid.Path) {
	seen := map[protowire.Number]bool{}
	for len(raw) > 0 && c.faults < maxFaults {
		number, _, n := protowire.ConsumeField(raw)
		if n < 0 {
			c.add(p, "holds bytes that are not a field")
			return
		}
		raw = raw[n:]
		if !seen[number] {
			seen[number] = true
			c.add(p.Field(strconv.Itoa(int(number))), "is the number of a field that this version does not know: upgrade the gateway, or leave the field out")
		}
	}
}
