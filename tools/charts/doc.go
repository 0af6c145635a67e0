// Charts draws what peerchat bench measured as an SVG picture: one bar a row,
// as long as the row is good beside its baseline.
//
//	peerchat bench --json | go run -C tools ./charts --title "TCP" > tcp.svg
//
// It reads the lines of --json on standard input. A row with a ratio gets a bar
// of that length, the baseline being 1; where less is better, as for times, of
// one over the ratio. So longer is always better. Rows without a ratio are left
// out. With --unit the rows of that unit are drawn by their value instead.
// --only takes the rows whose names match a regular expression.
//
// The picture has its own light and dark colours and follows what the reader's
// system asks for. It holds no script and no reference to anything outside.
//
// # Limits
//
// At most 64 bars; a line of the input at most 64 KiB. A figure that is not a
// number, or is below zero, is an error: nothing is drawn then.
package main
