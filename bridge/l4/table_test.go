package l4

import (
	"testing"
	"time"
)

func TestTableDefaults(t *testing.T) {
	var zero Table
	if zero.idleTimeout() != time.Hour || zero.linger() != time.Minute {
		t.Errorf("%v, %v", zero.idleTimeout(), zero.linger())
	}
}
