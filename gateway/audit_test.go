package gateway

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
)

// A write that cannot be recorded is refused and changes nothing, even if the gateway
// itself makes it. Automatic rollbacks do not depend on the audit log.
func TestAWriteThatCannotBeRecordedChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	g := start(t, "", func(o *Options) { o.AuditLog = AuditLog{File: path, Required: true} })
	g.put(bare("one", "127.0.0.1:0"))
	g.apply(store.Edit{Puts: puts(bare("pending", "127.0.0.1:0")), ConfirmWithin: time.Hour})
	g.audit.Close(t.Context()) // a closed log acts like a broken one: it accepts no more lines
	before := g.State().Revision()
	for _, origin := range []store.Origin{{Principal: "uid:0", Method: "Apply"}, {Method: "SIGHUP"}, {Method: "file"}} {
		_, err := g.Apply(t.Context(), store.Edit{Puts: puts(bare("two", "127.0.0.1:0")), Origin: origin})
		var faults *invalid.Error
		if !errors.As(err, &faults) || faults.Worst() != invalid.Unavailable || !strings.Contains(err.Error(), "audit log") {
			t.Errorf("%v: %v", origin, err)
		}
	}
	if _, err := g.Confirm(t.Context(), before, store.Origin{Principal: "uid:0"}); err == nil || !strings.Contains(err.Error(), "audit log") {
		t.Errorf("confirm: %v", err)
	}
	if now := g.State().Revision(); now != before {
		t.Errorf("revision %d became %d", before, now)
	}
	if _, err := g.Apply(t.Context(), store.Edit{Puts: puts(bare("two", "127.0.0.1:0")), DryRun: true}); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	if err := g.goBack(t.Context(), before); err != nil || g.State().Revision() != before+1 || g.Pending() != nil {
		t.Errorf("the gateway cannot undo a change: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Count(string(text), `"result":"STARTED"`) != 2 || strings.Count(string(text), `"result":"OK"`) != 2 || !strings.Contains(string(text), `"revision_after":1`) {
		t.Errorf("the audit log: %v\n%s", err, text)
	}
}
