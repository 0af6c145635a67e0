// Package parcel sends files and folders to one receiver: verified, and
// continued where a cut left them.
//
//	// the sender: opens channels, again after a cut
//	sum, err := parcel.Send(ctx, parcel.SendConfig{Open: open}, "photos", "notes.txt")
//
//	// the receiver: is given channels
//	r := parcel.NewReceiver(parcel.Config{Folder: folder, Consent: ask})
//	sum, err := r.Serve(ctx, conn, parcel.Peer{ID: device}, nil) // conn is named Scheme…
//
// # Wire
//
// A parcel goes over one channel, named Scheme and 32 hex digits that its sender
// chose for it and uses again when it comes back. Both send frames, big-endian:
//
//	length:uint32 | kind:uint8 | body[length]
//
// Kind 9 has content: 65 536 to 1 048 576 bytes (a file's last piece: 0 to
// 1 048 576), then the BLAKE3-256 of the file's content from its beginning to
// here. All others have a msgpack array of at most 16 384 bytes:
//
//	 0  nothing                                               both, see below
//	 1  offer    [version 2, id bin(16), entries uint, bytes uint, names [str]{0..16}, lists bool]   →
//	 2  answer   [accepted bool, reason str]                                             ←
//	 3  entry    [index uint, path [str]{1..32}, folder bool, size uint, modified ms, executable bool]   →
//	 4  compare  [index]                                                                 ←
//	 5  digest   [index, sum bin(32)]                                                    →
//	 6  want     [index, offset uint, sum bin(32), or bin(0) with offset 0]              ←
//	 8  start    [index, from uint]                                                      →
//	 9  piece                                                                            →
//	10  broken   [index, reason str]                                                     →
//	11  kept     [index, name str, same bool]                                            ←
//	12  failed   [index, reason str]                                                     ←
//	13  end      []                                                                      →
//	14  list     []                                                                      ←
//
// The offer says how many entries and how many bytes will come at most, and the
// first names. If it lists, the receiver may ask for all entries before it answers
// (list): they are told as they will be announced, then an end. A person is asked
// about that listing, and nothing else is taken then. Older offers end before lists.
// After a yes entries follow, numbered from 0, at most 256 of which
// may be neither kept nor failed nor broken. A receiver to which this sender has
// sent a file of that name and size asks for its sum (compare): the same content is
// kept at once. Of other files nothing is told. Otherwise it wants the
// content from an offset, up to which it has content with that sum of this
// sender. The sender starts there if its own content fits, else at 0. Pieces
// follow at once and reach exactly the announced size, at least one; or broken,
// which also ends an entry that has not started. After its last piece the entry
// is kept or failed; failed may also come before. A sender that reads it while
// it sends the content stops with broken.
//
// Each side sends nothing when it has sent nothing for 15 s, and gives up when it
// has received nothing for 60 s.
//
// # Limits
//
// Sessions, entries at once and entries a day are bounded, for strangers apart from
// members: a Receiver's constants and Config say how. Neither side holds more than the 256 entries under way, however many there
// are. A file is continued from whole pieces; slow senders send small ones.
// Links, devices and sockets are not sent, but a link that the user names is
// followed; nor are owners, folders' times and access rights but "executable". To
// continue a file both sides read what is there once more. A folder is sent as it
// was counted: what is new then is not sent. A file that changes while it is sent
// fails, told by its size and time; a change within a tick of the file system's
// clock (some milliseconds) that leaves the size cannot be told.
package parcel
