// Package strictjson decodes JSON that this program wrote, perhaps edited by a
// person since: what it would not have written is refused with its line.
package strictjson

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// Error is why a text is not taken.
type Error struct {
	Line int // from 1; 0: it is not about one
	// Err is what is wrong. It is a *jsontext.SyntacticError or a *json.SemanticError
	// where package json refuses the text, and may be replaced by better words.
	Err error
}

// Error tells the line and what is wrong there.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("line %d: %v", e.Line, words(e.Err))
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Decode parses one JSON value of at most limit bytes into v, a pointer, as
// encoding/json writes it. A key that is unknown, there twice or spelled in another
// case, bytes that are not UTF-8, and anything behind the value are errors. Each
// error is an *Error. Options change what package json does. After an error v may
// be filled in part.
func Decode(text []byte, limit int, v any, options ...json.Options) error {
	if err := check(text, limit); err != nil {
		return err
	}
	all := json.JoinOptions(append([]json.Options{json.RejectUnknownMembers(true), jsonv1.FormatDurationAsNano(true)}, options...)...)
	dec := jsontext.NewDecoder(bytes.NewReader(text), all)
	err := json.UnmarshalDecode(dec, v, all)
	at := int(dec.InputOffset())
	rest := bytes.TrimLeftFunc(text[at:], unicode.IsSpace)
	switch {
	case err == nil && len(rest) == 0:
		return nil
	case err == nil:
		at, err = len(text)-len(rest), fmt.Errorf("there is more after the end: %.80q", bytes.TrimSpace(rest))
	case errors.Is(err, io.ErrUnexpectedEOF): // which is what a half-written file looks like
		at, err = len(text), errors.New("the rest is cut off")
	default:
		at = offset(err)
	}
	return &Error{1 + bytes.Count(text[:at], []byte("\n")), err}
}

// check looks for what makes a text unreadable as a whole.
func check(text []byte, limit int) error {
	switch {
	case len(text) > limit:
		return &Error{0, fmt.Errorf("too long: at most %d bytes are taken", limit)}
	case bytes.HasPrefix(text, []byte("\xef\xbb\xbf")):
		return &Error{1, errors.New("it begins with a byte order mark: save it as UTF-8 without one")}
	case bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")):
		return &Error{1, errors.New("it is UTF-16: save it as UTF-8")}
	case len(bytes.TrimSpace(text)) == 0:
		return &Error{1, errors.New("it is empty: want {} at least")}
	}
	n := 0
	for line := range bytes.Lines(text) {
		if n++; !utf8.Valid(line) {
			return &Error{n, errors.New("not UTF-8")}
		}
	}
	return nil
}

// offset returns where the text is wrong.
func offset(err error) int {
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return int(e.ByteOffset)
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		return int(e.ByteOffset)
	}
	return 0
}

// kinds are what can be of the wrong kind.
var kinds = map[jsontext.Kind]string{'{': "an object", '[': "a list", '"': "a string", '0': "a number", 't': "true", 'f': "false", 'n': "null"}

// words says in our words what package json refuses.
func words(err error) error {
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if e.Err == jsontext.ErrDuplicateName {
			return fmt.Errorf("%.80q is set twice", e.JSONPointer.LastToken())
		}
		return fmt.Errorf("not JSON: %w", e.Err)
	}
	e, ok := errors.AsType[*json.SemanticError](err)
	switch {
	case !ok:
		return err
	case e.Err == nil:
		return fmt.Errorf("%s cannot be at %q", kinds[e.JSONKind], "/"+strings.TrimPrefix(string(e.JSONPointer), "/"))
	case e.Err == json.ErrUnknownName:
		return fmt.Errorf("unknown key %.80q", e.JSONPointer.LastToken())
	}
	return e.Err
}
