package invalid

import (
	"errors"
	"testing"
)

func TestPathsAreSpelledAsInTheProto(t *testing.T) {
	var root Path
	for _, tt := range []struct {
		got  Path
		want string
	}{
		{root.Field("upstream"), "upstream"},
		{root.Field("upstream").Field("endpoints").Index(2).Field("address"), "upstream.endpoints[2].address"},
		{root.Field("labels").Key(`a"b`), `labels["a\"b"]`},
		{root.Field("groups").Join("[1]"), "groups[1]"},
		{root.Field("pem").Join("private_key"), "pem.private_key"},
		{root.Field("pem").Join(""), "pem"},
	} {
		if string(tt.got) != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestEmptyListIsNoError(t *testing.T) {
	var l List
	l.Warn("NO_EFFECT", "a", "odd")
	if err := l.Err(); err != nil {
		t.Fatalf("Err() = %v for warnings only", err)
	}
	if w := l.Warnings(); len(w) != 1 || w[0].Message != "odd" || w[0].Code != "NO_EFFECT" {
		t.Fatalf("Warnings() = %v", w)
	}
}

func TestWorstFaultDecidesTheClass(t *testing.T) {
	var l, more List
	l.AddClass(InUse, "", "listener %q still uses it", "web")
	l.AddClass(Conflict, "upstream.etag", "is stale")
	more.Add("upstream.name", "must not be empty")
	l.Merge(&more)

	var e *Error
	if !errors.As(l.Err(), &e) {
		t.Fatal("not an *Error")
	}
	if e.Worst() != Argument {
		t.Errorf("Worst() = %v, want Argument", e.Worst())
	}
	want := "listener \"web\" still uses it\nupstream.etag: is stale\nupstream.name: must not be empty"
	if e.Error() != want {
		t.Errorf("Error() = %q, want %q", e.Error(), want)
	}
	// The error is a copy and does not contain later faults.
	l.Add("x", "y")
	if len(e.Faults) != 3 {
		t.Errorf("the error grew to %d faults", len(e.Faults))
	}
}
