package admin

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
)

// A durationField is a field of a request that holds a duration.
type durationField struct {
	path        invalid.Path
	example     string
	absent      time.Duration // the value of an unset field
	least, most time.Duration
}

// of returns the value of the field, and adds a fault if it is not valid.
func (f durationField) parse(d *durationpb.Duration, bad *invalid.List) time.Duration {
	if d == nil {
		return f.absent
	}
	if d.CheckValid() != nil {
		bad.Add(f.path, "is not a valid duration; write seconds, such as %q", f.example)
		return 0
	}
	v := d.AsDuration()
	if v < f.least || v > f.most {
		bad.Add(f.path, "is %v; it must be from %s to %s", v, short(f.least), short(f.most))
	}
	return v
}

// short formats a duration without zero units: 24h, 1s, 0.
func short(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if rest, ok := strings.CutSuffix(text, zero); ok {
			text = rest + zero[:1]
		}
	}
	return text
}
