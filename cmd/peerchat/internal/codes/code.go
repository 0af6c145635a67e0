package codes

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// MaxNumber is the highest number of a code.
const MaxNumber = 9999

// maxTyped is how many bytes of what somebody typed are looked at: three times
// the longest code.
const maxTyped = 64

// ErrCode is matched by every error of Parse.
var ErrCode = errors.New("not an invite code")

// Code is an invite code: where the inviting device is found, and the secret.
type Code struct {
	// Number is from 1 to MaxNumber. It is no secret.
	Number int
	// Words are two words of the list in lower case, with a minus sign between
	// them. They are a secret until they were used.
	Words string
}

// String returns the code as people write it: 7-amber-walrus.
func (c Code) String() string { return strconv.Itoa(c.Number) + "-" + c.Words }

// Parse reads a code as people type it: in any case, with spaces or other signs
// between its parts. The error matches ErrCode and says which part is wrong and,
// where there is one, which word was perhaps meant.
func Parse(typed string) (Code, error) {
	if len(typed) > maxTyped {
		return Code{}, fmt.Errorf("%w: it has %d characters; a code looks like 7-amber-mango", ErrCode, len(typed))
	}
	parts := strings.Split(strings.TrimSuffix(normalise(typed), "-"), "-")
	if len(parts) != 3 {
		return Code{}, fmt.Errorf("%w: a code is a number and two words, as 7-amber-mango", ErrCode)
	}
	n, err := strconv.ParseUint(parts[0], 10, 32)
	if err != nil || n < 1 || n > MaxNumber {
		return Code{}, fmt.Errorf("%w: it begins with a number from 1 to %d, not with %q", ErrCode, MaxNumber, parts[0])
	}
	for _, w := range parts[1:] {
		if isWord(w) {
			continue
		}
		hint := ""
		if near := nearest(w); near != "" {
			hint = fmt.Sprintf("; perhaps it is %q", near)
		}
		return Code{}, fmt.Errorf("%w: %q is none of the words that codes are made of%s", ErrCode, w, hint)
	}
	return Code{Number: int(n), Words: parts[1] + "-" + parts[2]}, nil
}

// normalise writes letters small and whatever is neither letter nor digit as
// one minus sign, and as none at the beginning. One at the end stays: it tells
// that a word is to follow; Parse takes it off.
func normalise(s string) string {
	var b strings.Builder
	gap := false
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			gap = b.Len() > 0
			continue
		}
		if gap {
			b.WriteByte('-')
			gap = false
		}
		b.WriteRune(unicode.ToLower(r))
	}
	if gap {
		b.WriteByte('-')
	}
	return b.String()
}
