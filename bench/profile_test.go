package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
)

func TestAProfileIsWrittenForTheLengthOfAMeasurement(t *testing.T) {
	var asked []string
	ops := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		_, _ = w.Write([]byte("profile"))
	}))
	defer ops.Close()
	dir := t.TempDir()
	s := &site{
		kind: proxy.Drawbridge{Label: "new"}, row: row{name: "reqresp"}, running: &proxy.Running{Ops: ops.Listener.Addr().String()},
		options: &options{profiles: dir, length: 1500 * time.Millisecond},
	}
	for range 2 {
		if err := s.hold(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := slices.Repeat([]string{"/debug/pprof/profile?seconds=2"}, 2); !slices.Equal(asked, want) {
		t.Errorf("requests were %q, want %q", asked, want)
	}
	for _, name := range []string{"new-reqresp-1.pprof", "new-reqresp-2.pprof"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != "profile" {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}

func TestAProxyWithoutProfilesFailsTheMeasurement(t *testing.T) {
	ops := httptest.NewServer(http.NotFoundHandler())
	defer ops.Close()
	path := filepath.Join(t.TempDir(), "profile")
	err := recordProfile(t.Context(), ops.Listener.Addr().String(), time.Second, path)
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v, want the status", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was written")
	}
}

func TestProfilesAreServedOnlyIfEnabled(t *testing.T) {
	for _, args := range [][]string{{"-profiles", t.TempDir()}, {}} {
		o, err := parseOptions(args)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.subject[0].(proxy.Drawbridge).Profiled; got != (len(args) > 0) {
			t.Errorf("with %q Profiled is %v", args, got)
		}
	}
}
