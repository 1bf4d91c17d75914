// The page about verification has a row for every reason of the API. The
// generated reference has the same rows.

package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// onlyInTheAccessLog are the reasons of records whose cause is not an upstream. The
// API does not have them.
var onlyInTheAccessLog = []string{"CLIENT_RESET", "CLIENT_TRUNCATED", "CLIENT_FAILED"}

func TestEveryReasonIsDocumented(t *testing.T) {
	_, section, _ := strings.Cut(readPage(t, "../docs/verification.md"), "\n## Reasons\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \\|").FindAllStringSubmatch(section, -1) {
		for _, name := range strings.Split(row[1], ", ") {
			documented[strings.Trim(name, "`")] = true
		}
	}
	reference := readPage(t, "../docs/reference/api.md")
	for name, number := range adminv1.Reason_value {
		short := strings.TrimPrefix(name, "REASON_")
		if number != 0 && !documented[short] {
			t.Errorf("docs/verification.md has no row for %s", short)
		}
		if !strings.Contains(reference, "| `"+name+"` |") {
			t.Errorf("docs/reference/api.md has no row for %s", name)
		}
		delete(documented, short)
	}
	for name := range documented {
		if !slices.Contains(onlyInTheAccessLog, name) {
			t.Errorf("docs/verification.md has a row for %s, which is not a reason of the API", name)
		}
	}
}
