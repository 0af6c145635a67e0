package website

import (
	"cmp"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"

	"peerlink/internal/escape"
)

const (
	// maxListed is how many entries of a folder are shown.
	maxListed = 10_000
	indexPage = "index.html"
)

// folder serves files. The root keeps all of it inside, links included.
type folder struct {
	root   *os.Root
	hidden bool
	log    *slog.Logger
}

func newFolder(name string, hidden bool, log *slog.Logger) (*folder, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("serve a folder: %w", err)
	}
	return &folder{root, hidden, log}, nil
}

// ServeHTTP implements http.Handler.
func (f *folder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		problem(w, r, http.StatusMethodNotAllowed, "These are files: they can be read, and that is all.")
		return
	}
	name, ok := f.local(r.URL.Path)
	if !ok {
		f.fail(w, r, fs.ErrNotExist)
		return
	}
	file, info, err := f.open(name)
	if err != nil {
		f.fail(w, r, err)
		return
	}
	defer file.Close()
	slash := strings.HasSuffix(r.URL.Path, "/")
	switch {
	case info.IsDir() != slash && name != ".":
		to := url.URL{Path: "/" + name, RawQuery: r.URL.RawQuery}
		if info.IsDir() {
			to.Path += "/"
		}
		w.Header().Set("Location", to.String())
		problem(w, r, http.StatusMovedPermanently, "It is at "+to.Path)
	case info.IsDir():
		f.index(w, r, name, file)
	default:
		f.send(w, r, file, info)
	}
}

// local returns the name in the root that a path means. What begins with a dot
// is not there.
func (f *folder) local(p string) (string, bool) {
	if strings.ContainsAny(p, "\x00\\") { // the second one parts names on some systems
		return "", false
	}
	name := strings.TrimPrefix(path.Clean("/"+p), "/")
	if name == "" {
		return ".", true
	}
	for part := range strings.SplitSeq(name, "/") {
		if !f.visible(part) {
			return "", false
		}
	}
	return name, true
}

func (f *folder) visible(name string) bool { return f.hidden || !strings.HasPrefix(name, ".") }

// open opens what can be served: neither pipes, which would block, nor devices.
func (f *folder) open(name string) (*os.File, fs.FileInfo, error) {
	info, err := f.root.Stat(name)
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, nil, err
	}
	file, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may be another one by now
	if err != nil {
		return nil, nil, err
	}
	info, err = file.Stat()
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// send answers with a file, or the parts of it that were asked for.
func (f *folder) send(w http.ResponseWriter, r *http.Request, file *os.File, info fs.FileInfo) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache") // it may change: ask again, by its date
	http.ServeContent(w, r, info.Name(), info.ModTime(), file)
}

// index answers with a folder's index.html, or else a list.
func (f *folder) index(w http.ResponseWriter, r *http.Request, name string, dir *os.File) {
	file, info, err := f.open(path.Join(name, indexPage))
	switch {
	case err == nil && info.Mode().IsRegular():
		defer file.Close()
		f.send(w, r, file, info)
		return
	case err == nil:
		_ = file.Close()
	case !errors.Is(err, fs.ErrNotExist):
		f.fail(w, r, err)
		return
	}
	f.list(w, r, name, dir)
}

// entry is a line of a list.
type entry struct{ Href, Name, Size, Time string }

var listPage = template.Must(template.New("list").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}}</title>
<style>` + style + `</style>
<h1>{{.Title}}</h1>
<table>{{if .Up}}<tr><td><a href="../">../</a><td><td>{{end}}
{{range .Entries}}<tr><td><a href="{{.Href}}">{{.Name}}</a><td>{{.Size}}<td>{{.Time}}
{{end}}</table>
{{if .Cut}}<p>There is more; this is where the list ends.</p>{{end}}
</html>
`))

func (f *folder) list(w http.ResponseWriter, r *http.Request, name string, dir *os.File) {
	all, err := dir.ReadDir(maxListed + 1)
	if err != nil && err != io.EOF {
		f.fail(w, r, err)
		return
	}
	cut := len(all) > maxListed
	var entries []entry
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	for _, e := range all[:min(len(all), maxListed)] {
		if !f.visible(e.Name()) {
			continue
		}
		info, err := f.root.Stat(path.Join(name, e.Name())) // where a link leads to
		switch {
		case err != nil: // gone, or outside
		case info.IsDir():
			entries = append(entries, entry{href(e.Name() + "/"), escape.Line(e.Name()) + "/", "", info.ModTime().Format("2006-01-02 15:04")})
		case info.Mode().IsRegular():
			entries = append(entries, entry{href(e.Name()), escape.Line(e.Name()), humanize.IBytes(uint64(info.Size())), info.ModTime().Format("2006-01-02 15:04")})
		}
	}
	own(w.Header())
	w.Header().Set("Cache-Control", "no-cache")
	if r.Method == http.MethodHead {
		return
	}
	title := "/"
	if name != "." {
		title += escape.Line(name) + "/"
	}
	err = listPage.Execute(w, struct {
		Title   string
		Up, Cut bool
		Entries []entry
	}{title, name != ".", cut, entries})
	if err != nil {
		f.log.Debug("website: a list was not sent", "err", err)
	}
}

// href is a link to a name in the same folder, whatever it looks like.
func href(name string) string { return (&url.URL{Path: "./" + name}).String() }

// fail says that something is not to be had. Where it is outside, or a name is
// none on this system, it is just not there.
func (f *folder) fail(w http.ResponseWriter, r *http.Request, err error) {
	f.log.Debug("website: not served", "path", r.URL.Path, "err", err)
	switch {
	case errors.Is(err, fs.ErrPermission):
		problem(w, r, http.StatusForbidden, "The owner of this site cannot read "+r.URL.Path+" either: it lacks the permission.")
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
		w.Header().Set("Retry-After", "5")
		problem(w, r, http.StatusServiceUnavailable, "This site has too many files open. Try again.")
	default:
		problem(w, r, http.StatusNotFound, "There is no "+r.URL.Path+" here.")
	}
}
