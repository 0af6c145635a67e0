//go:build linux

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	// root is where the module begins.
	root = "../.."
	// program is where the rooms of peerchat stand; rows write it as P.
	program = "cmd/peerchat/internal"
)

// notOurs are folders without a program that a peer can reach.
var notOurs = regexp.MustCompile(`^(test|tools|web|peerlinktest|carriertest|\.[a-z]+|.*/testdata|.*/(bench|e2epeer|callstest))($|/)`)

// makers are the calls that make something which others may fill: listeners, places,
// rates, tables of the last used, databases and logs.
var makers = regexp.MustCompile(`^(quota\.New\w*|lru\.New|simplelru\.New\w*|rate\.NewLimiter|sql\.Open|atomicfile\.\w+|.*\bListen(UDP|TCP|Unix|Packet)?|os\.OpenFile)$`)

// walk calls do for each Go file of the module.
func walk(t *testing.T, do func(path, room string) error) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		file, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && file != "." && notOurs.MatchString(file):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(file, ".go"):
			return do(path, filepath.Dir(file))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// places returns what in the sources others may fill: what makers make, queues, gates of
// connections, and maps that live as long as a struct does. Each is named by its room, by what holds it
// and by what makes it.
func places(t *testing.T) map[string]bool {
	t.Helper()
	var found []string
	walk(t, func(path, room string) error {
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err == nil && !strings.HasPrefix(room, "internal/quota") { // which is what counts the others
			ast.Walk(visitor{room: strings.Replace(room, program, "P", 1), all: &found}, f)
		}
		return err
	})
	counts := map[string]int{}
	for _, p := range found {
		counts[p]++
	}
	named := map[string]bool{}
	for p, n := range counts {
		if n > 1 {
			p += fmt.Sprintf(" ×%d", n)
		}
		named[p] = true
	}
	return named
}

// visitor notes the places of a file.
type visitor struct {
	room string
	all  *[]string
	fun  string // the function
	lit  string // the type of the literal
	name string // of what is assigned
}

func (v visitor) note(what string) { *v.all = append(*v.all, v.room+" "+v.name+" "+what) }

func (v visitor) in(name string) visitor {
	v.name = name
	return v
}

// Visit implements ast.Visitor.
func (v visitor) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.FuncDecl:
		v.fun, v.name = n.Name.Name, n.Name.Name+"()"
	case *ast.CompositeLit:
		if n.Type == nil {
			break
		}
		if v.lit = bare(n.Type); v.lit == "proving.Gate" {
			v.note(v.lit)
		}
	case *ast.KeyValueExpr:
		if k, ok := n.Key.(*ast.Ident); ok {
			return v.in(v.lit + "." + k.Name)
		}
	case *ast.AssignStmt:
		if id, ok := n.Lhs[0].(*ast.Ident); ok {
			return v.in(v.fun + "." + id.Name)
		}
		return v.in(types.ExprString(n.Lhs[0]))
	case *ast.TypeSpec:
		v.maps(n)
	case *ast.CallExpr:
		v.call(n)
	}
	return v
}

// maps notes the fields of a struct that are maps.
func (v visitor) maps(n *ast.TypeSpec) {
	s, ok := n.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range s.Fields.List {
		if _, ok := f.Type.(*ast.MapType); ok && len(f.Names) > 0 {
			v.in(n.Name.Name + "." + f.Names[0].Name).note("map")
		}
	}
}

// call notes a call that makes a place.
func (v visitor) call(n *ast.CallExpr) {
	name := bare(n.Fun)
	if name == "make" && len(n.Args) == 2 {
		if _, ok := n.Args[0].(*ast.ChanType); ok && types.ExprString(n.Args[1]) != "1" {
			v.note("queue")
		}
	} else if makers.MatchString(name) {
		v.note(name)
	}
}

// bare is an expression without type parameters.
func bare(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.IndexExpr:
		e = x.X
	case *ast.IndexListExpr:
		e = x.X
	}
	return types.ExprString(e)
}

// tests returns the names of all test functions.
func tests(t *testing.T) map[string]bool {
	names := map[string]bool{}
	walk(t, func(path, _ string) error {
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			if fun, ok := d.(*ast.FuncDecl); ok && fun.Recv == nil && strings.HasPrefix(fun.Name.Name, "Test") {
				names[fun.Name.Name] = true
			}
		}
		return nil
	})
	return names
}

// TestEveryPlaceHasABoundAndATestThatFillsIt fails when something is made that a peer
// may fill and that brim has no row for: say there what bounds it, and which test fills
// it to the brim.
func TestEveryPlaceHasABoundAndATestThatFillsIt(t *testing.T) {
	there, tested := places(t), tests(t)
	for p := range there {
		if _, ok := brim[p]; !ok {
			t.Errorf("a place without a row in brim_rows_test.go: %q: say what bounds it, and which test fills it", p)
		}
	}
	for p, r := range brim {
		switch {
		case !there[p]:
			t.Errorf("the row %q is of a place that is not there", p)
		case r.bound == "":
			t.Errorf("the row %q does not say the bound", p)
		case strings.HasPrefix(r.bound, "own: "):
		case !tested[r.test] && !slices.ContainsFunc(slices.Concat(attacks...), func(a attack) bool { return a.name == r.test }):
			t.Errorf("the row %q names the test %q, which is neither a test function nor an attack", p, r.test)
		}
	}
}
