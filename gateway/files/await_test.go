package files

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestAwaitGivesUpOnFilesThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := hclog.New(&hclog.LoggerOptions{Output: &log})
		release := make(chan struct{})
		hang := func() (int, error) {
			<-release
			return 1, nil
		}
		began := time.Now()
		n, err := Await(t.Context(), logger, "data directory /data", hang)
		if n != 0 || err == nil || !strings.Contains(err.Error(), "data directory /data: no result within 30s") || time.Since(began) != awaitTime {
			t.Errorf("%d, %v after %v", n, err, time.Since(began))
		}
		if lines := strings.Count(log.String(), "still waiting for files"); lines < 5 || !strings.Contains(log.String(), "/data") {
			t.Errorf("%d lines:\n%s", lines, log.String())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Await(ctx, logger, "config.yaml", hang); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		close(release)
	})
}

func TestAwaitReturnsTheResult(t *testing.T) {
	failure := errors.New("no such file")
	n, err := Await(t.Context(), hclog.NewNullLogger(), "files", func() (int, error) { return 2, failure })
	if n != 2 || !errors.Is(err, failure) {
		t.Errorf("%d, %v", n, err)
	}
}
