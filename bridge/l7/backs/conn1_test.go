package backs

import "testing"

// The exchange finds these methods by type assertions, so without this test, losing
// one would only cost speed.
func TestConnectionsHaveTheFastMethods(t *testing.T) {
	var one any = &conn1{}
	if r, ok := one.(interface{ HasRoom() bool }); !ok || !r.HasRoom() {
		t.Error("a small body would be sent by a goroutine of its own")
	}
	for _, stream := range []any{shared{}, &connecting{}} {
		if _, ok := stream.(interface{ HasRoom() bool }); !ok {
			t.Errorf("%T: a small body would be sent by a goroutine of its own", stream)
		}
		if _, ok := stream.(interface {
			TryWrite([]byte) (int, error)
			AwaitRoom(bool, func()) bool
		}); !ok {
			t.Errorf("%T: a blocked upload would keep a goroutine", stream)
		}
		if d, ok := stream.(interface{ ReportsRefusals() bool }); !ok || !d.ReportsRefusals() {
			t.Errorf("%T: its body would not be kept", stream)
		}
	}
}
