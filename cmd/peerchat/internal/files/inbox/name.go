package inbox

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"peerlink/internal/escape"
)

// Bounds of a name: an element as most file systems have it, a whole path as
// Linux has it, and few enough folders for each system's limits.
const (
	MaxNameLen = 255
	MaxPathLen = 4000
	MaxDepth   = 32
)

// partPrefix begins the names of incomplete files and of their states, which
// stateSuffix ends.
const (
	partPrefix  = ".peerlink-part-"
	stateSuffix = ".state"
)

// ErrName is matched when a name cannot be made into one for this folder.
var ErrName = errors.New("not a name for a file here")

// Clean makes the elements of a foreign path into a path below the folder, with
// slashes. What only some systems cannot have is escaped as %XX: control and
// other unprintable characters, \ : * ? " < > | and a space at the beginning or
// a space or dot at the end; Windows' devices get an underscore ("CON_.txt").
// Letters are composed (NFC), so that what looks the same is the same. What is
// no element (empty, "." and "..", one with a slash or a NUL), is not UTF-8, is
// longer than 255 bytes after all this, or is called as incomplete files are, is
// refused, as are paths that are too long or too deep. The error matches ErrName.
func Clean(elements []string) (string, error) {
	if len(elements) == 0 || len(elements) > MaxDepth {
		return "", fmt.Errorf("%w: a path of %d elements, 1 to %d are taken", ErrName, len(elements), MaxDepth)
	}
	clean := make([]string, len(elements))
	for i, e := range elements {
		var err error
		if clean[i], err = cleanElement(e); err != nil {
			return "", err
		}
	}
	p := path.Join(clean...)
	if len(p) > MaxPathLen {
		return "", fmt.Errorf("%w: a path of %d bytes, at most %d are taken", ErrName, len(p), MaxPathLen)
	}
	return p, nil
}

func cleanElement(s string) (string, error) {
	bad := func(why string) (string, error) { return "", fmt.Errorf("%w: %.80q %s", ErrName, s, why) }
	switch {
	case s == "" || s == "." || s == "..":
		return bad("is no name")
	case len(s) > MaxNameLen: // before any work on it
		return bad(fmt.Sprintf("has %d bytes, at most %d are taken", len(s), MaxNameLen))
	case !utf8.ValidString(s):
		return bad("is not UTF-8")
	case strings.ContainsAny(s, "/\x00"):
		return bad("has a slash or a NUL")
	}
	s = norm.NFC.String(percent(norm.NFC.String(s))) // an accent joins the escape before it
	if device(s) {
		stem, ext, dot := strings.Cut(s, ".")
		s = stem + "_"
		if dot {
			s += "." + ext
		}
	}
	switch {
	case len(s) > MaxNameLen:
		return bad(fmt.Sprintf("has %d bytes when escaped, at most %d are taken", len(s), MaxNameLen))
	case strings.HasPrefix(strings.ToLower(s), partPrefix):
		return bad("is what incomplete files are called here")
	}
	return s, nil
}

// percent replaces what some system, or a terminal, takes for something else.
func percent(s string) string {
	var b strings.Builder
	var prev rune
	for i, r := range s {
		edge := r == ' ' && i == 0 || (r == ' ' || r == '.') && i+1 == len(s)
		shown := !edge && escape.Visible(prev, r) && !strings.ContainsRune(`\:*?"<>|`, r)
		if prev = r; shown {
			b.WriteRune(r)
			continue
		}
		for _, c := range []byte(string(r)) {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// device reports whether Windows takes the name for a device.
func device(s string) bool {
	stem, _, _ := strings.Cut(strings.ToUpper(s), ".")
	switch stem = strings.TrimRight(stem, " "); stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	digit, com := strings.CutPrefix(stem, "COM")
	if !com {
		if digit, com = strings.CutPrefix(stem, "LPT"); !com {
			return false
		}
	}
	return strings.Contains("0123456789¹²³", digit) && utf8.RuneCountInString(digit) == 1
}

// numbered returns the name with " (i)" before its extension, short enough.
func numbered(name string, i int) string {
	if i == 0 {
		return name
	}
	ext := path.Ext(name)
	stem := strings.TrimSuffix(name, ext)
	if stem == "" || len(ext) > 32 { // ".profile" is all stem
		stem, ext = name, ""
	}
	mark := fmt.Sprintf(" (%d)", i)
	for len(stem)+len(mark)+len(ext) > MaxNameLen {
		_, n := utf8.DecodeLastRuneInString(stem)
		stem = stem[:len(stem)-n]
	}
	return stem + mark + ext
}
