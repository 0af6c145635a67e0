// Package channel is one stream of a link as an application sees it: [Socket], a
// net.Conn with half-close, messages and datagrams, and the errors of its calls.
// Programs get Sockets from their links; package multiplex makes them.
//
// # Flow control and limits
//
// A Socket buffers at most the window it has announced, and tells the peer of
// consumed bytes by credit, once a part of the window has been read. A peer that
// sends past its credit loses the channel. Buffers are taken when bytes
// arrive and given back when they are read: an idle channel holds none.
//
// # Ends
//
// Each direction ends once: by a clean end (io.EOF for the reader), by a reset
// (a *ResetError), or with the link (its cause, never io.EOF). Bytes that
// arrived before the end are always readable first.
package channel
