// Package website offers a folder, a web server of this machine and CGI programs
// to other devices over channels, and opens the site of another device in a
// local browser.
//
//	s, err := website.New(website.Config{Folder: "photos", Allow: allow, PeerOf: peerOf})
//	err = s.Serve(l)                              // the channels of website.Pattern
//
//	err = website.Share(l, map[string]*website.Server{"": s, "docs": docs})   // or several
//
//	g, err := website.NewGateway(website.GatewayConfig{Device: bob, Dial: dial})
//	fmt.Println(g.URL(l.Addr()))                  // http://0f3c….localhost:8080/
//	err = g.Serve(l)                              // a listener on loopback
//
// # Who may
//
// Nobody whom Allow does not know. Others get a page that says so, and nothing
// of what is offered.
//
// # Who it is
//
// What is served learns the caller's proven device id: a web server from the
// header Peerlink-Device, a CGI program from PEERLINK_DEVICE and REMOTE_USER.
// Headers of a caller that look like it, in any spelling that some server takes
// for the same, are dropped, and so are those in which proxies tell names and
// addresses (Forwarded, X-Forwarded-*, X-Real-Ip, Remote-User and their like)
// and trailers.
//
// # The browser's side
//
// The pages are a stranger's, and a browser gives cookies to all ports of a
// host alike. So a site has a host of its own under localhost, which browsers
// find on this machine by themselves. Programs may use 127.0.0.1 too; cookies do
// not pass there, and browsers are sent to the name. Other names are refused, or
// a page elsewhere could have its own name point here (DNS rebinding); and so is
// what another site's page asks for, except for plain reading, which the browser
// does not let it see.
//
// # Limits
//
// For each device 32 connections and 4 CGI programs at once, for all 256 and 16;
// those who may not see the site have 2 connections, and 32, of their own. 64 KiB
// of header, 10 s for it, 2 min between requests; bodies of requests by
// Config.MaxBody. A CGI program has Config.CGITime and 64 MiB of output, and
// needs a body whose length is told. If it fails after it began to print its page
// (by a status that is not 0, too), the connection is cut, so that no half page
// looks whole. Folders are listed up to 10 000 entries.
package website
