package l4

import (
	"testing"
	"time"
)

func TestTableDefaults(t *testing.T) {
	var zero Table
	if zero.handshakeTimeout() != 10*time.Second || zero.idleTimeout() != time.Hour || zero.linger() != time.Minute {
		t.Errorf("%v, %v, %v", zero.handshakeTimeout(), zero.idleTimeout(), zero.linger())
	}
}
