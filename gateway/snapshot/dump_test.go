package snapshot

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unsafe"
)

// dump returns a text of all live objects of a snapshot's listeners and
// upstreams, in every package. Two snapshots that would handle traffic in the
// same way have equal dumps. The dump omits desired state and values that
// change by themselves.
func dump(s *Snapshot) string {
	d := dumper{seen: map[visit]int{}}
	for _, l := range s.Listeners() {
		d.line("listener", l.Name, l.Network, l.Address, l.Down, l.Unix.Mode.String(), l.Unix.Group)
		d.value(reflect.ValueOf(l.tcp), 0)
		d.value(reflect.ValueOf(l.http), 0)
	}
	for _, u := range s.Upstreams() {
		live := s.upstreams.Get(u.Name)
		d.line("upstream", u.Name, u.Message)
		d.value(reflect.ValueOf(live.live), 0)
		d.value(reflect.ValueOf(live.back), 0)
		d.value(reflect.ValueOf(live.proxy), 0) // the upstream calls the proxy's Dial
		d.line("revalidation", fmt.Sprint(live.policy.Action, live.policy.Grace))
	}
	return d.b.String()
}

type dumper struct {
	b    strings.Builder
	seen map[visit]int
}

type visit struct {
	at unsafe.Pointer
	of reflect.Type
}

func (d *dumper) line(words ...string) { fmt.Fprintln(&d.b, strings.Join(words, " ")) }

// notDumped matches types that do not affect traffic: counters, locks, loggers.
var notDumped = regexp.MustCompile(`^(certs\.useReport|certs\.indexCost|sync\.|hclog\.|time\.Time|time\.Timer|context\.|maphash\.|socket\.Pool|socket\.Descriptors|upstream\.Tracker|adminv1\.|l7\.pooled|invalid\.)`)

func (d *dumper) value(v reflect.Value, depth int) {
	if !v.IsValid() {
		d.line("nil")
		return
	}
	t := v.Type()
	name := strings.TrimLeft(t.String(), "*[]")
	if notDumped.MatchString(name) {
		return
	}
	if strings.HasPrefix(name, "atomic.") {
		// Traffic depends on what an atomic pointer points to; atomic numbers only count.
		if load := v.Addr().MethodByName("Load"); strings.HasPrefix(name, "atomic.Pointer") && load.IsValid() {
			d.value(load.Call(nil)[0], depth)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			d.line("nil")
			return
		}
		if re, ok := open(v).Interface().(*regexp.Regexp); ok {
			d.line(re.String())
			return
		}
		key := visit{v.UnsafePointer(), t}
		if n, ok := d.seen[key]; ok {
			d.line("again", fmt.Sprint(n))
			return
		}
		d.seen[key] = len(d.seen)
		d.value(v.Elem(), depth+1)
	case reflect.Interface:
		if v.IsNil() {
			d.line("nil")
			return
		}
		d.line(v.Elem().Type().String())
		d.value(addressable(v.Elem()), depth+1)
	case reflect.Struct:
		if strings.HasPrefix(t.String(), "sharded.Map[") {
			d.value(merged(open(v.FieldByName("shards"))), depth)
			return
		}
		d.line(t.String(), "{")
		for i := range t.NumField() {
			if f := t.Field(i); f.Name != "_" {
				d.line(f.Name)
				d.value(open(v.Field(i)), depth+1)
			}
		}
		d.line("}")
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 && t.Name() == "" && v.Kind() == reflect.Slice {
			d.line(fmt.Sprintf("%x", open(v).Bytes()))
			return
		}
		d.line("[", fmt.Sprint(v.Len()))
		for i := range v.Len() {
			d.value(open(v.Index(i)), depth+1)
		}
		d.line("]")
	case reflect.Map:
		var entries []string
		for it := v.MapRange(); it.Next(); {
			e := dumper{seen: map[visit]int{}}
			for k, n := range d.seen {
				e.seen[k] = n
			}
			if k := it.Key(); k.Kind() != reflect.Pointer {
				e.value(addressable(k), depth+1)
			}
			e.value(addressable(it.Value()), depth+1)
			entries = append(entries, e.b.String())
		}
		slices.Sort(entries)
		d.line(entries...)
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		d.line(t.String(), fmt.Sprint(v.IsNil()))
	default:
		d.line(fmt.Sprint(open(v).Interface()))
	}
}

// merged returns the entries of all shards in one map, because their distribution
// over the shards is random.
func merged(shards reflect.Value) reflect.Value {
	all := reflect.MakeMap(shards.Type().Elem())
	for i := range shards.Len() {
		for it := shards.Index(i).MapRange(); it.Next(); {
			all.SetMapIndex(it.Key(), it.Value())
		}
	}
	return all
}

// open returns v as if all of its fields were exported.
func open(v reflect.Value) reflect.Value {
	if v.CanInterface() {
		return v
	}
	if !v.CanAddr() {
		v = addressable(v)
	}
	return reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem()
}

// addressable returns a copy of v that has an address.
func addressable(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	if v.CanInterface() {
		c.Set(v)
		return c
	}
	// Reflection can read the value of an unexported field, but cannot copy it as
	// a reflect.Value.
	switch v.Kind() {
	case reflect.String:
		c.SetString(v.String())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		c.SetInt(v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		c.SetUint(v.Uint())
	case reflect.Pointer:
		*(*unsafe.Pointer)(c.Addr().UnsafePointer()) = v.UnsafePointer()
	}
	return c
}
