package codes

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"peerlink/identity"
)

// introduceTimeout is how long names may take to be exchanged and kept.
const introduceTimeout = 15 * time.Second

// maxName is the length in bytes of the longest name.
const maxName = identity.MaxNameLen

// Introduce exchanges names over a channel on which Prove has succeeded just now.
// mine is what this side suggests to be called, for which identity.CheckName must
// hold. keep is called with what the other suggests, which is checked alike and
// still a stranger's word; what it keeps is to be on disk when it returns. An
// inviter keeps first: when the joiner's Introduce returns without an error, both
// have kept, but the inviter may have done so without the joiner. It blocks for
// 15 s at most, and for keep; the channel stays the caller's.
func Introduce(ctx context.Context, conn net.Conn, role Role, mine string, keep func(theirs string) error) error {
	if err := identity.CheckName(mine); err != nil {
		return fmt.Errorf("introduce: %w", err)
	}
	err := bounded(ctx, conn, introduceTimeout, func() error { return introduceAs(conn, role, mine, keep) })
	if err != nil {
		return fmt.Errorf("introduce: %w", err)
	}
	return nil
}

func introduceAs(conn net.Conn, role Role, mine string, keep func(string) error) error {
	say := func(k kind, body string) error {
		_, err := conn.Write(frame(k, []byte(body)...))
		return err
	}
	if role == Joiner {
		if err := say(kindName, mine); err != nil {
			return err
		}
	}
	theirs, err := readName(conn)
	if err != nil {
		return err
	}
	if err := keep(theirs); err != nil {
		return deny(conn, noRoom, err)
	}
	if role == Joiner {
		return say(kindKept, "")
	}
	if err := say(kindName, mine); err != nil {
		return err
	}
	_, err = expect(conn, kindKept, 0)
	return err
}

// readName reads the name that the other side suggests.
func readName(r io.Reader) (string, error) {
	k, body, err := readFrame(r)
	switch {
	case err == io.EOF:
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	case k == kindNo && len(body) > 0:
		return "", refused(refusal(body[0]))
	case k != kindName || len(body) > maxName:
		return "", fmt.Errorf("%w: one of kind %d with %d bytes where a name belongs", errMalformed, k, len(body))
	}
	if err := identity.CheckName(string(body)); err != nil {
		return "", fmt.Errorf("%w: %w", errMalformed, err)
	}
	return string(body), nil
}
