// In the admin API, every number and switch whose default is not zero has
// presence. Otherwise 0 would look like an absent field.

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestDefaultsOtherThanZeroAreOptional(t *testing.T) {
	files, err := filepath.Glob("../proto/drawbridge/admin/v1/*.proto")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	field := regexp.MustCompile(`^\s*(optional )?(int32|int64|bool|double) (\w+) = \d+`)
	preset := regexp.MustCompile(`Default: ([1-9]|on\b|true\b)`)
	seen := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		comment := ""
		for line := range strings.Lines(string(text)) {
			if words, ok := strings.CutPrefix(strings.TrimSpace(line), "//"); ok {
				comment += words
				continue
			}
			if m := field.FindStringSubmatch(line); m != nil && preset.MatchString(comment) {
				if seen++; m[1] == "" {
					t.Errorf("%s: %s has a default that is not zero, and is not optional:%s", filepath.Base(file), m[3], comment)
				}
			}
			comment = ""
		}
	}
	if seen < 10 {
		t.Errorf("only %d such fields were found: the comments no longer have the form that this test reads", seen)
	}
}
