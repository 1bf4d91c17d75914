package l7

import (
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
)

// values parses lines as header rules.
func values(lines ...string) []policy.HeaderValue {
	var out []policy.HeaderValue
	for _, line := range lines {
		name, text, _ := strings.Cut(line, ": ")
		value, err := policy.ParseValue(text, true)
		if err != nil {
			panic(err)
		}
		out = append(out, policy.HeaderValue{Name: name, Value: value})
	}
	return out
}

// fields parses lines as fields.
func fields(lines ...string) message.Fields {
	var f message.Fields
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		f.Add(name, value)
	}
	return f
}
