package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func picture(t *testing.T, in, title string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	if err := run([]string{"--title", title}, strings.NewReader(in), &out, io.Discard); err != nil {
		return "", err
	}
	d := xml.NewDecoder(bytes.NewReader(out.Bytes()))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return out.String(), nil
		} else if err != nil {
			t.Fatalf("not XML: %v in\n%s", err, out.String())
		}
	}
}

func TestEachCharacterKeepsItsColumnAndColour(t *testing.T) {
	got, err := picture(t, "a\x1b[1;32mbc\x1b[0m宽\x1b[38;5;196mred\x1b[39m \x1b[48;2;1;2;3mx\x1b[0m\nplain \x1b[7mchosen\x1b[27m & <b>\n", "t")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<text x="14" y="28" textLength="9" fill="#e6edf3">a</text>`,
		`<text x="23" y="28" textLength="18" fill="#3fb950" font-weight="bold">bc</text>`,
		`<text x="41" y="28" textLength="18" fill="#e6edf3">宽</text>`,
		`<text x="59" y="28" textLength="27" fill="#ff0000">red</text>`,
		`fill="#010203"/>`, `fill="#0d1117">chosen</text>`, ">\u00a0&amp;\u00a0&lt;b&gt;</text>",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

func TestWhatIsNoScreenIsAnError(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "no screen",
		strings.Repeat("x\n", 201):    "more than 200 lines",
		strings.Repeat("x", 401):      "more than 400 columns",
		strings.Repeat("\x1b[m", 3e4): "token too long",
	} {
		if _, err := picture(t, in, "t"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", in, err, want)
		}
	}
}

func FuzzScreenshot(f *testing.F) {
	f.Add("a\x1b[1;32mb\x1b[38;5;300mc\x1b[38;2;1md\x1b]0;title\ae\xff\x00", "title")
	f.Add("\x1b[38m\x1b[48;5m\x1b[;;;m\u202e宽", "]]>")
	f.Fuzz(func(t *testing.T, in, title string) {
		if got, err := picture(t, in, "x"+title); err == nil && strings.ContainsAny(got, "\x1b\x00\u202e") {
			t.Errorf("%q", got)
		}
	})
}
