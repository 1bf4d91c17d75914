package snapshot

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// No field of a listener, route or upstream is silently ignored. The test changes
// one field of the API at a time, in every kind of resource that can have the
// field. Then a fault must name the field, or the live objects must change.
func TestNoFieldIsIgnored(t *testing.T) {
	visited := map[protoreflect.FullName]bool{}
	for name, base := range fieldBases(t) {
		t.Run(name, func(t *testing.T) {
			w := newTestbed(t)
			sound := base.dump(t, w, base.subject)
			if again := base.dump(t, w, base.subject); again != sound {
				t.Fatal("two snapshots of the same differ")
			}
			tried, refused := 0, 0
			note(base.subject.ProtoReflect(), visited)
			for _, c := range fieldCases(base.subject.ProtoReflect(), "") {
				visited[c.field.FullName()] = true
				if slices.ContainsFunc(base.same, func(same string) bool { return strings.HasPrefix(c.String(), same) }) {
					continue
				}
				tried++
				changed := proto.Clone(base.subject).(store.Resource)
				c.set(changed.ProtoReflect())
				next, faults := base.compile(w, changed)
				switch {
				case len(faults) > 0:
					refused++
					if !slices.ContainsFunc(faults, func(f invalid.Fault) bool { return strings.Contains(f.String(), string(c.field.Name())) }) {
						t.Errorf("%s is refused, but no fault names it: %v", c, faults)
					}
				case dump(next) == sound:
					t.Errorf("%s is accepted and changes nothing", c)
				}
			}
			t.Logf("%d settings, %d of them refused", tried, refused)
		})
	}
	for _, m := range []proto.Message{&adminv1.Listener{}, &adminv1.Route{}, &adminv1.Upstream{}} {
		for _, f := range fieldsBelow(m.ProtoReflect().Descriptor()) {
			if !visited[f.FullName()] {
				t.Errorf("no resource of this test has %s", f.FullName())
			}
		}
	}
}

// note records the fields of a message and of the messages in it.
func note(m protoreflect.Message, fields map[protoreflect.FullName]bool) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		fields[f.FullName()] = true
		switch {
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				note(v.List().Get(i).Message(), fields)
			}
		default:
			note(v.Message(), fields)
		}
		return true
	})
}

// A fieldBase is a resource with as many fields as it can have, and the resources
// that it refers to.
type fieldBase struct {
	subject store.Resource
	others  []store.Resource

	// same lists cases, or prefixes of their paths, that do not change the
	// snapshot: a value that equals the default, a difference that no listener
	// here can show, or a dns setting that only takes effect on endpoints found
	// later.
	same []string
}

// compile builds everything from scratch, so that the snapshot reuses no
// earlier object.
func (b fieldBase) compile(w *testbed, subject store.Resource) (*Snapshot, []invalid.Fault) {
	w.snap = new(Snapshot)
	next, _, bad := w.try(store.Edit{Puts: puts(append([]store.Resource{subject}, b.others...)...)})
	return next, bad.Faults()
}

func (b fieldBase) dump(t *testing.T, w *testbed, subject store.Resource) string {
	t.Helper()
	next, faults := b.compile(w, subject)
	if len(faults) > 0 {
		t.Fatalf("the resource itself is refused: %v", faults)
	}
	return dump(next)
}

// A fieldCase sets one field of a resource to another value.
type fieldCase struct {
	path  string
	field protoreflect.FieldDescriptor
	what  string
	set   func(protoreflect.Message)
}

func (c fieldCase) String() string { return c.path + " = " + c.what }

// notInput reports whether a field is output-only or a label.
func notInput(f protoreflect.FieldDescriptor) bool {
	switch f.Name() {
	case "labels", "etag", "revision", "info":
		return f.ContainingMessage().Name() != "HeaderValue"
	case "name":
		switch f.ContainingMessage().Name() {
		case "Listener", "Route", "Upstream":
			return true
		}
	}
	return false
}

// fieldsBelow returns the fields of a message and of the messages in it.
func fieldsBelow(m protoreflect.MessageDescriptor) (all []protoreflect.FieldDescriptor) {
	if m.ParentFile().Package() != "drawbridge.admin.v1" {
		return nil
	}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if notInput(f) {
			continue
		}
		all = append(all, f)
		if f.Message() != nil && !f.IsMap() {
			all = append(all, fieldsBelow(f.Message())...)
		}
	}
	return all
}

// fieldCases returns a case for each value to try, of each field of m and of the
// messages in it. For a list, it changes the first element.
func fieldCases(m protoreflect.Message, prefix string) (cases []fieldCase) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if notInput(f) {
			continue
		}
		path := prefix + string(f.Name())
		add := func(what string, set func(protoreflect.Message)) {
			cases = append(cases, fieldCase{path, f, what, set})
		}
		switch {
		case f.IsList() && f.Message() != nil:
			add("one less, or none", func(m protoreflect.Message) {
				if l := m.Mutable(f).List(); l.Len() > 0 {
					l.Truncate(l.Len() - 1)
				} else {
					l.Append(l.NewElement())
				}
			})
			if m.Get(f).List().Len() > 0 {
				for _, c := range fieldCases(m.Get(f).List().Get(0).Message(), path+".") {
					cases = append(cases, below(c, func(m protoreflect.Message) protoreflect.Message { return m.Mutable(f).List().Get(0).Message() }))
				}
			}
		case f.IsList():
			for _, v := range values(f, path) {
				if l := m.Get(f).List(); l.Len() == 1 && l.Get(0).Equal(v) {
					continue
				}
				add(fmt.Sprintf("[%v]", v), func(m protoreflect.Message) {
					l := m.NewField(f).List()
					l.Append(v)
					m.Set(f, protoreflect.ValueOfList(l))
				})
			}
		case f.Message() != nil && f.Message().FullName() == "google.protobuf.Duration":
			add("7s", func(m protoreflect.Message) {
				m.Set(f, protoreflect.ValueOfMessage(durationpb.New(7*time.Second).ProtoReflect()))
			})
		case f.Message() != nil:
			inner := m.Get(f).Message()
			if !m.Has(f) {
				if f.ContainingOneof() != nil || f.Message().Fields().Len() == 0 {
					add("{}", func(m protoreflect.Message) { m.Mutable(f) })
				}
				continue // other resources set the fields of this message
			}
			for _, c := range fieldCases(inner, path+".") {
				cases = append(cases, below(c, func(m protoreflect.Message) protoreflect.Message { return m.Mutable(f).Message() }))
			}
		default:
			for _, v := range values(f, path) {
				if m.Get(f).Equal(v) && (m.Has(f) || !f.HasPresence()) {
					continue
				}
				add(fmt.Sprint(v), func(m protoreflect.Message) { m.Set(f, v) })
			}
		}
	}
	return cases
}

// below converts a case of a message to a case of the message that contains it.
func below(c fieldCase, get func(protoreflect.Message) protoreflect.Message) fieldCase {
	set := c.set
	c.set = func(m protoreflect.Message) { set(get(m)) }
	return c
}

// texts are valid values for fields that do not accept every text.
var texts = map[string]string{
	"address": "127.0.0.9:9", "endpoints.address": "other.example:443", "tls.certificate": "client", "tls.trust_bundles": "trust2",
	"tls.certificates": "server2", "tls.client_trust_bundles": "trust2", "upstream": "other", "listeners": "other",
	"forward.upstreams.name": "other", "tls.groups": "P-384", "tls.alpn": "http/1.1", "tls.cipher_suites": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
	"tls.subject_alt_names": "DNS:x.example", "tls.client_subject_alt_names": "DNS:x.example", "tls.spki_pins": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
	"access.allow": "10.9.0.0/16", "access.deny": "10.9.0.0/16", "http.trusted_proxies": "10.9.0.0/16", "accept_proxy_protocol.trusted_sources": "10.9.0.0/16",
	"match.hosts": "y.example", "match.methods": "PUT", "match.path.prefix": "/y/", "match.path.exact": "/y", "match.path.regex": "/y+",
	"forward.rewrite.prefix": "/z/", "forward.rewrite.path": "/z", "forward.rewrite.regex.pattern": "y(.)", "forward.retry.methods": "POST",
	"redirect.path": "/y", "redirect.scheme": "https", "health_check.http.path": "/y", "health_check.http.method": "HEAD", "dns.srv": "_y._tcp.example.com",
	"dns.servers": "127.0.0.1:53", "via.http_connect.address": "other.example:3128", "via.socks5.address": "other.example:1080",
	"via.http_connect.tls.trust_bundles": "trust2", "via.http_connect.tls.certificate": "client",
}

// values returns the values to try for a field.
func values(f protoreflect.FieldDescriptor, path string) (all []protoreflect.Value) {
	switch f.Kind() {
	case protoreflect.StringKind:
		text, ok := texts[path]
		if !ok {
			text = "y"
		}
		all = append(all, protoreflect.ValueOfString(text))
	case protoreflect.BoolKind:
		all = append(all, protoreflect.ValueOfBool(true), protoreflect.ValueOfBool(false))
	case protoreflect.Int32Kind:
		n := int32(7)
		switch {
		case strings.HasSuffix(path, "code"):
			n = 307
		case strings.HasSuffix(path, "codes"):
			n = 504
		case strings.HasSuffix(path, "max_header_bytes"):
			n = 2048
		}
		all = append(all, protoreflect.ValueOfInt32(n))
	case protoreflect.Int64Kind:
		all = append(all, protoreflect.ValueOfInt64(7))
	case protoreflect.EnumKind:
		for i := range f.Enum().Values().Len() {
			if v := f.Enum().Values().Get(i); v.Number() > 1 || f.IsList() && v.Number() > 0 {
				all = append(all, protoreflect.ValueOfEnum(v.Number()))
			}
		}
	default:
		panic("no values for " + string(f.FullName()))
	}
	return all
}
