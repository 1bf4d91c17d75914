// Types and packages stay small enough to have one job each, as described in
// docs/architecture.md.

package e2e

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Limits for a type and a package. They are upper bounds, not goals: most types
// and packages are far smaller.
const (
	maxMethods = 40
	maxFields  = 30
	maxFiles   = 35 // files of a package, without tests
)

// tooLarge lists the types and packages over a limit, each with the reason. An
// entry that is no longer needed fails the test.
var tooLarge = map[string]string{}

func TestTypesAndPackagesHaveOneJob(t *testing.T) {
	packages, err := measure("..")
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 30 {
		t.Fatalf("found only %d packages", len(packages))
	}
	exceptions := maps.Clone(tooLarge)
	check := func(name, what string, n, most int) {
		if n <= most {
			return
		}
		if _, ok := tooLarge[name]; ok {
			delete(exceptions, name)
			return
		}
		t.Errorf("%s has %d %s, more than %d: give some of them to a type or package with a job of its own", name, n, what, most)
	}
	for path, p := range packages {
		check(path, "files", p.files, maxFiles)
		for name, n := range p.methods {
			check(path+"."+name, "methods", n, maxMethods)
		}
		for name, n := range p.fields {
			if !isRecord(name) {
				check(path+"."+name, "fields", n, maxFields)
			}
		}
	}
	for name := range exceptions {
		t.Errorf("%s is within the limits: remove its exception", name)
	}
}

// isRecord reports whether a type holds facts or settings and has no behavior.
// Such a type may have any number of fields.
func isRecord(name string) bool {
	for _, suffix := range []string{"Options", "Record", "Stats", "Status", "Table"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// A measured package holds the sizes of a package and its types.
type measured struct {
	files           int
	methods, fields map[string]int // numbers by type
}

// measure returns the sizes of the packages below root, by path.
func measure(root string) (map[string]*measured, error) {
	packages := make(map[string]*measured)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bench"):
			return fs.SkipDir // bench is another module
		case d.IsDir(), !strings.HasSuffix(name, ".go"), strings.HasSuffix(name, "_test.go"), strings.HasSuffix(name, ".pb.go"):
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		dir = filepath.ToSlash(dir)
		p := packages[dir]
		if p == nil {
			p = &measured{methods: make(map[string]int), fields: make(map[string]int)}
			packages[dir] = p
		}
		return p.add(path)
	})
	return packages, err
}

// add counts a file.
func (p *measured) add(path string) error {
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	p.files++
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv != nil {
				p.methods[receiver(d.Recv.List[0].Type)]++
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if s, ok := spec.(*ast.TypeSpec); ok {
					if st, ok := s.Type.(*ast.StructType); ok {
						p.fields[s.Name.Name] = fieldsOf(st)
					}
				}
			}
		}
	}
	return nil
}

// receiver returns the name of a method's type.
func receiver(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// fieldsOf counts the fields of a struct, including those of anonymous structs
// in it.
func fieldsOf(s *ast.StructType) (n int) {
	for _, f := range s.Fields.List {
		n += max(len(f.Names), 1)
		if inner, ok := f.Type.(*ast.StructType); ok {
			n += fieldsOf(inner)
		}
	}
	return n
}

func TestMeasuring(t *testing.T) {
	dir := t.TempDir()
	const source = `package p
type S struct { a, b int; c struct { d int }; e }
type e struct{}
func (s *S) One() {}
func (S) Two() {}
type G[T any] struct{ t T }
func (g *G[T]) Three() {}
`
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	packages, err := measure(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := packages["."]
	if p == nil || p.files != 1 || p.methods["S"] != 2 || p.methods["G"] != 1 || p.fields["S"] != 5 || p.fields["G"] != 1 {
		t.Errorf("%+v of %v", p, slices.Collect(maps.Keys(packages)))
	}
}
