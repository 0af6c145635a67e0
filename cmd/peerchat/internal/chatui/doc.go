// Package chatui is the chat on a terminal: contacts with their presence,
// several conversations, what became of each message, and an input of several
// lines. It shows what a Backend knows and keeps nothing itself.
//
//	err := chatui.Run(ctx, backend, chatui.Config{In: os.Stdin, Out: os.Stdout})
//
// # What a stranger can do to it
//
// Names, texts and reasons come from other people. They are escaped by package
// escape before they are measured or drawn; of a text at most 16 KiB and 200
// lines are shown, with a mark that says how much there is. Wrapped lines are
// kept, so that drawing costs what is on the screen, whatever arrives. A flood
// of events is drawn in batches.
//
// # Bounds
//
// One conversation holds at most 2000 messages and 8 MiB of text in memory; one
// that is not open, 100 messages. 64 messages wait to be taken by the Backend,
// one at a time, in the order they were typed. An input has at most 16 KiB and
// 400 lines; what a paste has more is left out, and said so.
//
// # Limits
//
// It needs a terminal; programs and pipes use plain lines instead. Emojis that
// are composed with a joiner are shown in their parts.
package chatui
