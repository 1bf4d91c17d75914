package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

// auditLines returns the records of an audit log as "method resources result".
func auditLines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		var r struct {
			Principal, Transport, Method, Result, Comment string
			Resources                                     []string
			DryRun                                        bool  `json:"dry_run"`
			Before                                        int64 `json:"revision_before"`
			After                                         int64 `json:"revision_after"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if want := fmt.Sprintf("uid:%d", os.Geteuid()); r.Transport == "UNIX" && r.Principal != want {
			t.Errorf("%s is recorded for %s, want %s", r.Method, r.Principal, want)
		}
		text := fmt.Sprint(r.Method[strings.LastIndex(r.Method, "/")+1:], " ", r.Resources, " ", r.Result)
		if r.After > 0 {
			text += fmt.Sprintf(" %d->%d", r.Before, r.After)
		}
		if r.DryRun {
			text += " dry run"
		}
		if r.Comment != "" {
			text += " " + r.Comment
		}
		lines = append(lines, text)
	}
	return lines
}

func TestTheAuditLogSaysWhoDidWhat(t *testing.T) {
	dir := tempDir(t)
	path := filepath.Join(dir, "audit.log")
	config := writeFile(t, dir, "db.yaml", "kind: Upstream\nname: up\nendpoints: [{address: 127.0.0.1:1}]\nplaintext: {}\n")
	empty := writeFile(t, dir, "start.yaml", "kind: TrustBundle\nname: sys\nsystem: {}\n")
	r, sh := serve(t, "--audit-log", path, "--config", empty)
	ctx := t.Context()
	sh.run(ctx, "apply", "-f", config, "--dry-run").want(t, exit.OK)
	sh.run(ctx, "apply", "-f", config, "--comment", "first").want(t, exit.OK)
	sh.run(ctx, "get", "all").want(t, exit.OK)
	sh.run(ctx, "status").want(t, exit.OK)
	sh.run(ctx, "delete", "upstream", "none").want(t, exit.NotFound)
	sh.run(ctx, "probe", "up").want(t, exit.Failure)
	sh.run(ctx, "flush-sessions", "up").want(t, exit.OK)

	// Rotate the log: rename the file, so that later records go to a new file.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	r.log.until(t, "SIGUSR1: audit log reopened", 1)
	sh.run(ctx, "delete", "upstream", "up").want(t, exit.OK)
	if code := r.stop(); code != exit.OK {
		t.Errorf("exit code %d", code)
	}

	before := strings.Join(auditLines(t, path+".1"), "\n")
	want := strings.Join([]string{
		"start [trust bundle sys] STARTED configuration file, start",
		"start [trust bundle sys] OK 0->1 configuration file, start",
		"Apply [upstream up] OK dry run",
		"Apply [upstream up] STARTED first",
		"Apply [upstream up] OK 1->2 first",
		"Apply [upstream none] NOT_FOUND dry run", // the dry run that shows the impact
		"ProbeUpstream [upstream up] OK",
		"FlushSessions [upstream up] OK",
	}, "\n")
	if before != want {
		t.Errorf("recorded:\n%s\nwant:\n%s", before, want)
	}
	if after := strings.Join(auditLines(t, path), "\n"); after != "Apply [upstream up] OK dry run\nApply [upstream up] STARTED\nApply [upstream up] OK 2->3" {
		t.Errorf("recorded after the rotation:\n%s", after)
	}
}

func TestAnAuditLogThatCannotBeOpenedEndsTheStart(t *testing.T) {
	dir := tempDir(t)
	shell{}.run(t.Context(), "serve", "--data-dir", filepath.Join(dir, "d"), "--audit-log", filepath.Join(dir, "none", "audit.log")).
		want(t, exit.Failure, "audit log: ", "no such file or directory")
}
