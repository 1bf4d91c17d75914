package commits

import (
	"strings"
	"testing"
)

func TestEveryStoreIsMeasured(t *testing.T) {
	var out strings.Builder
	err := Run(t.Context(), Options{Dir: t.TempDir(), Resources: 3, Commits: 10, Report: &out})
	if err != nil && !strings.Contains(err.Error(), "more than 1.5") { // a few commits are too few for the target
		t.Fatal(err)
	}
	for _, row := range []string{"without history ", "history ", "history, sealed "} {
		if !strings.Contains(out.String(), "\n"+row) {
			t.Errorf("no row %q in\n%s", row, out.String())
		}
	}
}
