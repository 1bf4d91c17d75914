package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/load"
)

// hold waits for the length of a measurement. If the run has a directory for
// profiles, it records a CPU profile meanwhile.
func (s *site) hold(ctx context.Context) error {
	if !s.profiles() {
		return load.Sleep(ctx, s.options.length)
	}
	s.profiled++
	name := fmt.Sprintf("%s-%s-%d.pprof", s.kind.Name(), s.row.name, s.profiled)
	return recordProfile(ctx, s.running.Ops, s.options.length, filepath.Join(s.options.profiles, name))
}

// profiles reports whether the running proxy is profiled.
func (s *site) profiles() bool { return s.options.profiles != "" && s.running.Ops != "" }

// recordProfile profiles the process whose ops server is at address for d,
// rounded up to whole seconds, and writes the profile to path.
func recordProfile(ctx context.Context, address string, d time.Duration, path string) error {
	seconds := (d + time.Second - 1) / time.Second
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, seconds)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	profile, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("no profile: %s: %.200s", answer.Status, profile)
	}
	return os.WriteFile(path, profile, 0o644)
}
