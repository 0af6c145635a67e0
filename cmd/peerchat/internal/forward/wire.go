package forward

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"peerlink/channel"
	"peerlink/internal/escape"
	"peerlink/internal/strictjson"
)

// The names of channels.
const (
	// Pattern claims what a server serves.
	Pattern   = "forward://*"
	URIDial   = "forward://dial"
	URIListen = "forward://listen"
	backURI   = "forward://back/"
)

const (
	maxMessage  = 4096
	askTimeout  = 10 * time.Second // for a request to come
	dialTimeout = 10 * time.Second // for a target to answer
	// answerTimeout is for both, and the way there and back.
	answerTimeout = askTimeout + dialTimeout
	tokenLen      = 16 // bytes: cannot be guessed
	maxText       = 1024
)

// BackURI is the name of the channels that a token brings.
func BackURI(token string) string { return backURI + token }

// request and answer are the two messages.
type request struct {
	Addr  string `json:"addr"`
	Token string `json:"token,omitempty"`
}

type answer struct {
	Addr  string `json:"addr,omitempty"`
	Error string `json:"error,omitempty"`
}

// ServerError is what the other device says about a request.
type ServerError struct {
	// Text is the device's, escaped and of 1 KiB at most.
	Text string
}

// Error returns the text, and whose it is.
func (e *ServerError) Error() string { return "the other device says: " + e.Text }

func checkToken(s string) error {
	if b, err := hex.DecodeString(s); err != nil || len(b) != tokenLen {
		return fmt.Errorf("a token of %d bytes: want %d hex digits", len(s), 2*tokenLen)
	}
	return nil
}

func writeMessage(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("a message of %d bytes: %d are the most", len(b), maxMessage)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// readMessage reads no byte more than the message has.
func readMessage(r io.Reader, v any) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n > maxMessage {
		return fmt.Errorf("a message of %d bytes: %d are the most", n, maxMessage)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if err := strictjson.Decode(b, maxMessage, v); err != nil {
		return fmt.Errorf("a message that is not as it must be: %w", err)
	}
	return nil
}

// ask sends a request and reads its answer. After an error the channel is cut.
func ask(ctx context.Context, c net.Conn, q request) (answer, error) {
	var a answer
	stop := context.AfterFunc(ctx, func() { cut(c) })
	defer stop()
	err := c.SetDeadline(time.Now().Add(answerTimeout))
	if err == nil {
		err = writeMessage(c, q)
	}
	var refused *channel.ResetError // of which what is read tells more
	if err == nil || errors.As(err, &refused) {
		err = readMessage(c, &a)
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err == nil && a.Error != "":
		text, _ := escape.Cut(escape.Line(a.Error), maxText)
		err = &ServerError{text}
	}
	if err != nil {
		cut(c)
		return a, err
	}
	return a, nil
}

// Dial has the device at the end of a new channel under URIDial connect to a
// target; then the channel carries the target's bytes. The error of a target
// that cannot be reached, or is not allowed, is a *ServerError with its address.
// It blocks for 20 s at most. After an error the channel is closed.
func Dial(ctx context.Context, c net.Conn, target Address) error {
	_, err := ask(ctx, c, request{Addr: target.Addr})
	return err
}

// Ask has the device at the end of a new channel under URIListen take
// connections, which come as channels under BackURI(token) until this one is
// closed, and returns where they are taken. Token is of NewToken. It blocks as
// Dial does.
func Ask(ctx context.Context, c net.Conn, where Address, token string) (Address, error) {
	a, err := ask(ctx, c, request{Addr: where.Addr, Token: token})
	if err != nil {
		return Address{}, err
	}
	at, err := parse(a.Addr, toListen)
	if err != nil {
		cut(c)
		return Address{}, fmt.Errorf("where the other device listens: %w", err)
	}
	return at, nil
}
