// Package inbox is the folder into which strangers' files go: what they may be
// called there, how they are kept while they are incomplete, and how they get
// their names.
//
//	folder, err := inbox.Open("Downloads")
//	name, err := inbox.Clean([]string{"holiday", "beach: day 1.jpg"})  // "holiday/beach%3A day 1.jpg"
//	part, err := folder.Resume(ctx, inbox.Claim{Owner: peer, Session: s}, name, size)
//	part.Len()                        // bytes that are there already, verified
//	err = part.Reserve()              // is there room for the rest?
//	err = part.Write(piece, sum)      // sum: BLAKE3 of everything up to here
//	kept, err := part.Keep(ctx, inbox.Meta{})  // the name it got
//	err = part.Close()                // or: keep what there is for another time
//	err := folder.Remember("account/received")  // what each sender has sent, beyond this process
//	gone, err := folder.Sweep(ctx, inbox.Rule{})  // what nobody came back for
//
// # On disk
//
// An incomplete file stands in the folder of the finished one, as
// ".peerlink-part-" and 32 hex digits of its owner's and its own name. Beside it
// stands its state, ".state": after a line that says what it is, marks of
//
//	offset:uint64 | BLAKE3 of the content up to there [32] | crc32c:uint32
//
// A mark is written after its content. Nothing is believed of either when a file
// is resumed: the content is hashed again, and the last mark that fits it is
// where it goes on; whatever is behind it is cut off. So a kill or a power cut
// at any moment costs what was not yet on the disk, and never correctness.
// Content and marks are synced every two seconds, the content again, and its
// folder, before a name is given; a name is given by a rename that replaces
// nothing, only after the last mark, which is the whole file's, has fitted.
// Pieces of zeros become holes. A file's last change is taken over, if it is from
// 1970 to a day ahead, and whether its owner may run it; nothing else is.
//
// What each sender has sent is remembered as hashes, in two files elsewhere
// (Remember): a sender is compared with nothing but that.
//
// What was not gone on with for 30 days is given up when a folder is swept, and
// of more than 1000 the oldest, but none younger than a day.
//
// # Limits
//
// All is done below an os.Root: no name, and no symbolic link somebody put into
// the folder, leads out of it. Where a system cannot tell the free space it is
// not checked. Only on Unix do two processes with the same folder notice that
// they receive the same file.
package inbox
