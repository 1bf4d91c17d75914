package exit

import (
	"testing"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
)

func TestFaultsOfAGatewayInThisProcess(t *testing.T) {
	var bad invalid.List
	bad.AddClass(invalid.InUse, "resources[0].listener.address", "is\nin use")
	bad.Add("", "is odd")
	f := AsError(ApplyError(bad.Err(), func(path string) string { return "<" + path + ">" }))
	if want := "<resources[0].listener.address>: is in use\nis odd\n2 faults; nothing was changed"; f.Code != Invalid || f.Error() != want {
		t.Errorf("got %d %s", f.Code, f)
	}
	for class, want := range map[invalid.Class]int{invalid.NotFound: NotFound, invalid.Conflict: Conflict,
		invalid.InUse: Conflict, invalid.Unavailable: Unavailable, invalid.Exhausted: Failure} {
		if f := AsError(ApplyError(invalid.Errorf(class, "", "x"), nil)); f.Code != want {
			t.Errorf("class %d: exit code %d, want %d", class, f.Code, want)
		}
	}
}
