// Package web holds the built page of “peerchat web”: a browser tab as a
// device.
//
//	http.FileServerFS(web.Page())
//
// The sources are TypeScript beside it (src/peerlink is the client library,
// src/page the page). dist is what “npm ci && npm run build” makes of them; it
// is committed, so that nothing here needs Node. The names of its assets hold
// a hash of their contents.
package web

import (
	"embed"
	"io/fs"
)

//go:embed dist
var dist embed.FS

// Page returns the built files: index.html and what it loads.
func Page() fs.FS {
	page, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // only an invalid name fails
	}
	return page
}
