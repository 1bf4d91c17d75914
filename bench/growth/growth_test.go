package growth

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every part measures a real gateway at small sizes, and draws its figures.
func TestASmallMeasurementOfEachPart(t *testing.T) {
	binary := os.Getenv("DRAWBRIDGE_BINARY")
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "drawbridge")
		if out, err := exec.Command("go", "-C", "../..", "build", "-o", binary, "./cmd/drawbridge").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, part := range []struct {
		name    string
		measure func(context.Context, Options) error
		rows    []string
		plots   []string
	}{
		{
			"connections", Connections,
			[]string{connMemory, connEach, connAccept, connIdle, connActive, connP50, connAfter, connFreed},
			[]string{"growth-idle-http.svg", "growth-idle-https.svg", "growth-idle-tcp.svg"},
		},
		{"routes", Routes, []string{resStart, resMemory, resStore, resWrite, resRequest, resPages, resPage, resAfter}, []string{"growth-routes.svg"}},
		{"certificates", Certificates, []string{resStart, resMemory, resStore, resWrite, resHandshake, resPages, resPage, resAfter}, []string{"growth-certificates.svg"}},
		{
			"revisions", Revisions,
			[]string{revCPU, revP50, revP99, revMemory, revStore, "idle before:", "idle after:"},
			[]string{"growth-revisions.svg", "growth-revisions-time.svg"},
		},
	} {
		t.Run(part.name, func(t *testing.T) {
			var report strings.Builder
			o := Options{
				Binary: binary, Report: &report, Plots: t.TempDir(), Conns: []int{1, 20}, Sizes: []int{5, 20}, Writes: 5,
				Load: 100 * time.Millisecond, Silence: 100 * time.Millisecond, Changing: []int{20, 40}, Routes: 10, Every: 10 * time.Millisecond,
			}
			err := part.measure(t.Context(), o)
			t.Log(report.String())
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range part.rows {
				if !strings.Contains(report.String(), row) {
					t.Errorf("the report lacks %q", row)
				}
			}
			for _, plot := range part.plots {
				if info, err := os.Stat(filepath.Join(o.Plots, plot)); err != nil || info.Size() == 0 {
					t.Errorf("the plot: %v", err)
				}
			}
		})
	}
}
