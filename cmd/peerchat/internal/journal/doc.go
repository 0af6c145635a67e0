// Package journal bounds what is logged: other devices cause most of it.
//
//	f, err := journal.Open(path)                                // a log file, and a few old ones beside it
//	defer f.Close()
//	h := journal.NewHandler(slog.NewTextHandler(f, nil))
//	defer h.Flush()                                             // says what was left out
//	log := slog.New(h)
//
// # Limits
//
// Records of one message are a kind. Of a kind and a device 10 are logged at once and
// then 6 a minute, of a kind 200 and then 2 a second, of all that name a device 1 000
// and then 10 a second, and as many of all others, so that devices leave room for
// what this one has to say. What is left out is counted, and its number is logged a minute later, with
// the next record, or by Flush. The device is what an attribute device, peer, from, to
// or node says. 1 024 devices and 256 kinds are remembered; what more there is counts
// as one kind.
//
// A file has 4 MiB at most; 3 old ones are kept, path.1 the newest of them.
package journal
