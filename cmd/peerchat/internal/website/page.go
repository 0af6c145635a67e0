package website

import (
	"html/template"
	"net/http"
	"strconv"

	"peerlink/internal/escape"
)

// maxReason is how much of an error a page shows, in bytes.
const maxReason = 4 << 10

// style is that of the pages of this package, light and dark.
const style = `:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:3rem auto;padding:0 1rem}` +
	`h1{font-size:1.4rem}table{border-collapse:collapse;width:100%}td{padding:.15rem .5rem;overflow-wrap:anywhere}td+td{text-align:right;white-space:nowrap}p{overflow-wrap:anywhere}`

var problemPage = template.Must(template.New("problem").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}}</title>
<style>` + style + `</style>
<h1>{{.Title}}</h1>
<p style="white-space:pre-line">{{.Reason}}</p>
</html>
`))

// problem answers with a page that says what is wrong. The reason may have several
// lines, as joined errors do, and may be a stranger's text.
func problem(w http.ResponseWriter, r *http.Request, code int, reason string) {
	text, cut := escape.Cut(escape.Text(reason), maxReason)
	if cut {
		text += " …"
	}
	h := w.Header()
	h.Del("Content-Length")
	h.Del("Content-Encoding")
	h.Del("Etag")
	h.Del("Last-Modified")
	h.Set("Cache-Control", "no-store")
	own(h)
	w.WriteHeader(code)
	if r.Method == http.MethodHead {
		return
	}
	_ = problemPage.Execute(w, struct{ Title, Reason string }{strconv.Itoa(code) + " " + http.StatusText(code), text}) // a caller who has gone
}

// own sets the header of a page that is made here and needs nothing.
func own(h http.Header) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}
