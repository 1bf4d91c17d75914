package health

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

func TestMessagesMatchGRPC(t *testing.T) {
	for _, service := range []string{"", "pay", string(bytes.Repeat([]byte("x"), 300))} {
		want, err := proto.Marshal(&grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		got := checkRequest(service)
		if len(got) != 5+len(want) || !bytes.Equal(got[5:], want) || !bytes.Equal(got[:5], []byte{0, 0, 0, byte(len(want) >> 8), byte(len(want))}) {
			t.Errorf("%q is written as %x, want %x", service, got, want)
		}
	}
	for status := range grpc_health_v1.HealthCheckResponse_ServingStatus_name {
		message, err := proto.Marshal(&grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_ServingStatus(status)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := servingStatus(append([]byte{0, 0, 0, 0, byte(len(message))}, message...))
		if err != nil || got != uint64(status) {
			t.Errorf("%d is read as %d, %v", status, got, err)
		}
	}
}

func TestUnknownFieldsAreSkippedAndMalformedOnesRejected(t *testing.T) {
	for _, test := range []struct {
		name    string
		message string
		want    uint64
		bad     bool
	}{
		{"an empty message", "", 0, false},
		{"other fields around it", "\x12\x02ab\x08\x01\x19........\x25....\x28\x05", 1, false},
		{"the last of two statuses counts", "\x08\x01\x08\x02", 2, false},
		{"half a key", "\x80", 0, true},
		{"half a number", "\x08\x80", 0, true},
		{"half a fixed-size number", "\x19...", 0, true},
		{"missing bytes", "\x12\x7fab", 0, true},
		{"bytes whose length is incomplete", "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 0, true},
		{"a group", "\x0b", 0, true},
	} {
		got, err := servingStatus(append([]byte{0, 0, 0, 0, byte(len(test.message))}, test.message...))
		if (err != nil) != test.bad || !test.bad && got != test.want {
			t.Errorf("%s: %d, %v", test.name, got, err)
		}
	}
	for _, framed := range []string{"", "\x00\x00\x00", "\x01\x00\x00\x00\x02\x08\x01", "\x00\x00\x00\x00\x03\x08\x01", "\x00\xff\xff\xff\xff\x08\x01"} {
		if _, err := servingStatus([]byte(framed)); err == nil {
			t.Errorf("%x was read", framed)
		}
	}
}

func FuzzServingStatus(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02\x08\x01"))
	f.Add([]byte("\x00\x00\x00\x00\x06\x12\x02ab\x08\x02"))
	f.Fuzz(func(t *testing.T, framed []byte) {
		got, err := servingStatus(framed)
		if err != nil {
			return
		}
		// The parser agrees with protobuf on all input that it accepts.
		var m grpc_health_v1.HealthCheckResponse
		if proto.Unmarshal(framed[5:], &m) == nil && got <= 3 && uint64(m.GetStatus()) != got {
			t.Errorf("%x is read as %d, and by protobuf as %d", framed, got, m.GetStatus())
		}
	})
}
