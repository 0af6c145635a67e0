// Package runfolder keeps a user's runtime folder, in which processes of one
// machine find each other's Unix sockets: the user that it must belong to, what a dead process
// left there, and which process is at the other end of a socket.
//
//	dir := runfolder.Default()
//	err := runfolder.Own(dir)
//	err = runfolder.Remove(path, fs.ModeSocket) // of a process that has died
//
// On systems other than Linux and macOS it is empty.
package runfolder
