// Messages, the names of tests, and comments outside Go follow the house style.
// make lint applies the same words to pages and to the comments of Go files.

package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestMessagesKeepToTheHouseStyle(t *testing.T) {
	words := styleWords(t)
	out, err := exec.Command("git", "-C", "..", "ls-files", "*.go").Output()
	if err != nil {
		t.Skip("not a git checkout:", err)
	}
	literals := 0
	for file := range strings.FieldsSeq(string(out)) {
		if strings.HasSuffix(file, ".pb.go") || file == "e2e/prose_test.go" {
			continue
		}
		fset := token.NewFileSet()
		syntax, err := parser.ParseFile(fset, filepath.Join("..", file), nil, 0)
		if os.IsNotExist(err) {
			continue // the file is deleted, but the deletion is not committed
		}
		if err != nil {
			t.Fatal(err)
		}
		report := func(pos token.Pos, text string) {
			if found := words.FindString(text); found != "" {
				t.Errorf("%s: %q: %q is not in the house style: see .vale/Drawbridge", fset.Position(pos), text, found)
			}
		}
		ast.Inspect(syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					literals++
					report(n.Pos(), text)
				}
			case *ast.FuncDecl:
				if n.Recv == nil && strings.HasPrefix(n.Name.Name, "Test") {
					report(n.Pos(), splitName(n.Name.Name))
				}
			}
			return true
		})
	}
	if literals < 10_000 {
		t.Errorf("found only %d literals", literals)
	}
}

// A comment behind code stands alone, so it begins with its noun: "the length of the
// body", not "of the body".
func TestTrailingCommentsKeepToTheHouseStyle(t *testing.T) {
	dangling := regexp.MustCompile(`^// (of|that|which|whose|who|and|likewise)\b`)
	out, err := exec.Command("git", "-C", "..", "ls-files", "*.go").Output()
	if err != nil {
		t.Skip("not a git checkout:", err)
	}
	trailing := 0
	for file := range strings.FieldsSeq(string(out)) {
		if strings.HasSuffix(file, ".pb.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", file))
		if os.IsNotExist(err) {
			continue // the file is deleted, but the deletion is not committed
		}
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		syntax, err := parser.ParseFile(fset, file, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		for _, group := range syntax.Comments {
			at := fset.Position(group.Pos())
			if strings.TrimSpace(lines[at.Line-1][:at.Column-1]) == "" {
				continue
			}
			trailing++
			if found := dangling.FindString(group.List[0].Text); found != "" {
				t.Errorf("%s: a comment that begins with %q lacks its noun", at, found)
			}
		}
	}
	if trailing < 1000 {
		t.Errorf("found only %d comments behind code", trailing)
	}
}

// Comments in examples, scripts, the unit and the Makefile follow the house style too.
// vale does not read these files.
func TestCommentsOutsideGoKeepToTheHouseStyle(t *testing.T) {
	words := styleWords(t)
	out, err := exec.Command("git", "-C", "..", "ls-files", "deploy", ".ci", "Makefile", "*.sh", "*.yaml").Output()
	if err != nil {
		t.Skip("not a git checkout:", err)
	}
	comments := 0
	for file := range strings.FieldsSeq(string(out)) {
		text, err := os.ReadFile(filepath.Join("..", file))
		if os.IsNotExist(err) || filepath.Ext(file) == ".md" {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		number := 0
		for line := range strings.Lines(string(text)) {
			number++
			_, comment, found := strings.Cut(line, "#")
			if !found {
				continue
			}
			comments++
			if word := words.FindString(comment); word != "" {
				t.Errorf("%s:%d: %q is not in the house style: see .vale/Drawbridge", file, number, word)
			}
		}
	}
	if comments < 50 {
		t.Errorf("found only %d comments", comments)
	}
}

// styleWords returns one expression for all words that Words.yml and Spelling.yml in
// .vale/Drawbridge forbid.
func styleWords(t *testing.T) *regexp.Regexp {
	_, list, found := strings.Cut(readPage(t, "../.vale/Drawbridge/Words.yml"), "\ntokens:\n")
	if !found {
		t.Fatal("Words.yml has no tokens")
	}
	var all []string
	for line := range strings.Lines(list) {
		token := strings.TrimPrefix(strings.TrimSpace(line), "- ")
		all = append(all, strings.ReplaceAll(strings.Trim(token, "'"), "''", "'"))
	}
	if len(all) < 10 {
		t.Fatalf("Words.yml has only %d tokens", len(all))
	}
	_, list, found = strings.Cut(readPage(t, "../.vale/Drawbridge/Spelling.yml"), "\nswap:\n")
	if !found {
		t.Fatal("Spelling.yml has no words")
	}
	for line := range strings.Lines(list) {
		british, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		all = append(all, `\b`+british+`\b`)
	}
	return regexp.MustCompile("(?i)" + strings.Join(all, "|"))
}

// splitName returns a name in camel case as words.
func splitName(name string) string {
	return regexp.MustCompile(`([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])`).ReplaceAllString(name, "$1$3 $2$4")
}
