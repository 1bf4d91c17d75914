package policy

import (
	"fmt"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

func TestCookie(t *testing.T) {
	for _, c := range []struct {
		fields []string
		want   string
	}{
		{nil, ""},
		{[]string{"session=a"}, "a"},
		{[]string{"x=1; session=a;y=2"}, "a"},
		{[]string{"x=1", "session=a"}, "a"},
		{[]string{"session=a; session=b"}, "a"},
		{[]string{"session=a=b"}, "a=b"},
		{[]string{"Session=a; sessions=b; asession=c"}, ""},
		{[]string{"session"}, ""},
		{[]string{";;; ; session=a"}, "a"},
		{[]string{"x=session=a"}, ""},
		{[]string{"\tsession=a "}, "a"},
	} {
		var f message.Fields
		for _, v := range c.fields {
			f.Add("cookie", v)
		}
		if got := cookie(f, "session"); got != c.want {
			t.Errorf("%q: %q, want %q", c.fields, got, c.want)
		}
	}
}

func TestHashingDoesNotAllocate(t *testing.T) {
	for _, h := range []upstream.HashKey{{ClientAddress: true}, {Header: "X-Tenant"}, {Cookie: "session"}} {
		x := factsOf("192.0.2.1:1", nil)
		x.Request.Fields = message.Fields{{Name: "X-Tenant", Value: "a"}, {Name: "Cookie", Value: "a=1; session=x"}}
		if !x.HashKey(h).Known {
			t.Errorf("%+v: no key", h)
		}
		alloctest.Want(t, fmt.Sprintf("%+v", h), 0, func() { x.HashKey(h) })
	}
}
