package http1

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// docs/http.md has one row for each error in error.go, with its status, rule
// and text, and no other row.
func TestTheDocumentationListsEveryError(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	inCode := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok || len(lit.Elts) != 3 {
			return true
		}
		var parts [3]string
		for i, e := range lit.Elts {
			b, ok := e.(*ast.BasicLit)
			if !ok {
				return true
			}
			if parts[i], err = strconv.Unquote(b.Value); err != nil {
				parts[i] = b.Value // the status
			}
		}
		inCode[fmt.Sprintf("| %s | %s | %s |", parts[0], parts[1], parts[2])] = true
		return true
	})
	if len(inCode) < 50 {
		t.Fatalf("error.go has only %d errors", len(inCode))
	}
	page, err := os.ReadFile("../../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range regexp.MustCompile(`(?m)^\| [0-9]{3} \| RFC .*$`).FindAllString(string(page), -1) {
		if !inCode[row] {
			t.Errorf("docs/http.md has a row that error.go lacks: %s", row)
		}
		delete(inCode, row)
	}
	for row := range inCode {
		t.Errorf("docs/http.md lacks %s", row)
	}
}
