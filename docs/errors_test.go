package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// declared returns the names that a package of this module declares.
func declared(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				all[n.Name.Name] = true
			case *ast.ValueSpec:
				for _, v := range n.Names {
					all[v.Name] = true
				}
			}
			_, inside := n.(*ast.FuncDecl)
			return !inside
		})
	}
	return all
}

// The list of errors is whole, and names none that does not exist.
//
// case: E18
func TestTheBookListsTheErrors(t *testing.T) {
	page := read(t, "go-api.md")
	table := regexp.MustCompile("(?m)^\\| `.*$").FindAllString(page, -1)
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`\\*?([a-z]+)\\.([A-Z]\\w+)").FindAllStringSubmatch(strings.Join(table, "\n"), -1) {
		named[m[1]+"."+m[2]] = true
	}
	for pkg, dir := range map[string]string{"peerlink": "..", "channel": "../channel", "multiplex": "../multiplex"} {
		names := declared(t, dir)
		for name := range names {
			same := named["peerlink."+name] // peerlink has it, too
			if strings.HasPrefix(name, "Err") && !named[pkg+"."+name] && !same {
				t.Errorf("go-api.md does not list %s.%s", pkg, name)
			}
		}
		for name := range named {
			if own, is := strings.CutPrefix(name, pkg+"."); is && !names[own] {
				t.Errorf("go-api.md lists %s, which does not exist", name)
			}
		}
	}
}
