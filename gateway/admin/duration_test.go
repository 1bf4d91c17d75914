package admin

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
)

func TestDurationsOutOfBoundsAreRejected(t *testing.T) {
	field := durationField{path: "wait", example: "90s", absent: time.Minute, least: time.Second, most: 90 * time.Minute}
	for _, tt := range []struct {
		in    *durationpb.Duration
		want  time.Duration
		fault string
	}{
		{nil, time.Minute, ""},
		{durationpb.New(time.Second), time.Second, ""},
		{durationpb.New(90 * time.Minute), 90 * time.Minute, ""},
		{durationpb.New(0), 0, "wait: is 0s; it must be from 1s to 1h30m"},
		{durationpb.New(2 * time.Hour), 2 * time.Hour, "wait: is 2h0m0s; it must be from 1s to 1h30m"},
		{&durationpb.Duration{Nanos: -1, Seconds: 1}, 0, `wait: is not a valid duration; write seconds, such as "90s"`},
	} {
		var bad invalid.List
		got := field.parse(tt.in, &bad)
		fault := ""
		if err := bad.Err(); err != nil {
			fault = err.Error()
		}
		if got != tt.want || fault != tt.fault {
			t.Errorf("%v: %v, %q", tt.in, got, fault)
		}
	}
	if got := short(0) + " " + short(24*time.Hour); got != "0 24h" {
		t.Errorf("%q", got)
	}
}
