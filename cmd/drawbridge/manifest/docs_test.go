package manifest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every configuration in the README and in the pages of docs can be parsed.
func TestDocumentedConfigurationsParse(t *testing.T) {
	pages, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	fenced := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	inShell := regexp.MustCompile(`(?ms)^cat > \S+\.yaml <<'END'\n(.*?)^END$`)
	found := 0
	for _, page := range append(pages, "../../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range append(fenced.FindAllStringSubmatch(string(text), -1), inShell.FindAllStringSubmatch(string(text), -1)...) {
			if !strings.Contains(block[1], "kind: ") {
				continue
			}
			found++
			if _, err := Parse(Source{Name: "page.yaml", Data: []byte(block[1])}); err != nil {
				t.Errorf("%s: %v\n%s", filepath.Base(page), err, block[1])
			}
		}
	}
	if found < 7 {
		t.Errorf("found only %d configurations", found)
	}
}
