package backs

import "testing"

// The exchange finds these methods by asking for them, so losing one costs speed and
// nothing else would fail.
func TestConnectionsHaveTheFastMethods(t *testing.T) {
	var one any = &conn1{}
	if r, ok := one.(interface{ Roomy() bool }); !ok || !r.Roomy() {
		t.Error("a small body would be sent by a goroutine of its own")
	}
	for _, stream := range []any{shared{}, &connecting{}} {
		if _, ok := stream.(interface{ Roomy() bool }); !ok {
			t.Errorf("%T: a small body would be sent by a goroutine of its own", stream)
		}
		if d, ok := stream.(interface{ Disclaims() bool }); !ok || !d.Disclaims() {
			t.Errorf("%T: its body would not be kept", stream)
		}
	}
}
