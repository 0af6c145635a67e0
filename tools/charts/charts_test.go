package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const sample = `{"measure":"tcp/write-64KiB","value":1878.4,"unit":"MB/s","baseline":1394,"ratio":1.35}
{"measure":"tcp/trip-p50","value":16.3,"unit":"µs","baseline":14.8,"ratio":1.25}
{"measure":"tcp/idle","value":780,"unit":"B","baseline":null,"ratio":null}

{"measure":"tcp/eight","value":1995,"unit":"MB/s","baseline":1409,"ratio":1.42}
`

// picture draws, and fails if the result is not whole XML.
func picture(t *testing.T, in string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	if err := run(args, strings.NewReader(in), &out, io.Discard); err != nil {
		if out.Len() > 0 {
			t.Error("something was drawn beside an error")
		}
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

func TestRatiosAreDrawnSoThatLongerIsBetter(t *testing.T) {
	got, err := picture(t, sample, "--title", "TCP & <TLS>")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"1.35×   1878 MB/s", "0.80×   16.3 µs", "1.42×   1995 MB/s", "<title>TCP &amp; &lt;TLS&gt;</title>",
		"prefers-color-scheme:dark", "var(--good,", "var(--less,", "var(--base,", "times as good as the baseline",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, not := range []string{"tcp/idle", "#01020", "<script", "href"} {
		if strings.Contains(strings.Replace(got, `xmlns:xlink="http://www.w3.org/1999/xlink"`, "", 1), not) {
			t.Errorf("%q in\n%s", not, got)
		}
	}
	if above, below := strings.Index(got, "tcp/write-64KiB"), strings.Index(got, "tcp/trip-p50"); above > below {
		t.Error("not in the order of the rows")
	}
}

func TestValuesOfOneUnitAreDrawn(t *testing.T) {
	got, err := picture(t, sample, "--unit", "B")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got, "780 B") || strings.Contains(got, "tcp/eight") || strings.Contains(got, "var(--base") {
		t.Error(got)
	}
	if got, err = picture(t, sample, "--only", "eight|trip"); err != nil || strings.Contains(got, "tcp/write") {
		t.Error(err, got)
	}
}

func TestOddInputIsAnErrorAndNoPicture(t *testing.T) {
	many := strings.Repeat(`{"measure":"x","value":1,"unit":"s","ratio":1}`+"\n", maxBars+1)
	for name, c := range map[string]struct {
		in, want string
		args     []string
	}{
		"nothing":        {"", "no row to draw", nil},
		"no ratio":       {`{"measure":"x","value":1,"unit":"s"}`, "no row to draw", nil},
		"ratio 0":        {`{"measure":"x","value":1,"unit":"s","ratio":0}`, "no row to draw", nil},
		"not JSON":       {"measure value\n", "line 1: ", nil},
		"wrong type":     {sample + `{"measure":1}`, "line 6: ", nil},
		"no value":       {`{"measure":"x","unit":"s","ratio":1}`, "x has no value", nil},
		"no name":        {`{"value":1,"unit":"s","ratio":1}`, `measure "", unit "s"`, nil},
		"long name":      {`{"measure":"` + strings.Repeat("x", 81) + `","value":1}`, "want 1 to 80 bytes", nil},
		"negative":       {`{"measure":"x","value":-1,"unit":"s","ratio":1}`, "value of x is -1", nil},
		"too large":      {`{"measure":"x","value":1,"unit":"s","ratio":1e300}`, "ratio of x is 1e+300", nil},
		"too small":      {`{"measure":"x","value":1,"unit":"s","ratio":1e-300}`, "too far from its baseline", nil},
		"out of range":   {`{"measure":"x","value":1e999,"unit":"s","ratio":1}`, "line 1: ", nil},
		"long line":      {strings.Repeat(" ", maxLine+1), "token too long", nil},
		"many rows":      {strings.Repeat(many, 20), "more than 1000 rows", nil},
		"many bars":      {many, "at most 64 can be drawn", nil},
		"no such unit":   {sample, "no row to draw", []string{"--unit", "furlong"}},
		"bad expression": {sample, "--only: ", []string{"--only", "("}},
		"argument":       {sample, "want flags only", []string{"rows.json"}},
		"unknown flag":   {sample, "not defined", []string{"--colour"}},
	} {
		if _, err := picture(t, c.in, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestHostileNamesAreOnlyWords(t *testing.T) {
	in := `{"measure":"</text><script>alert(1)</script>\u202e\u0000","value":0,"unit":"\u001b[2J","ratio":1}`
	got, err := picture(t, in, "--title", "]]><x \x00\xff"+strings.Repeat("long ", 50))
	if err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{"<script", "\u202e", "\x1b", "\x00", "<x "} {
		if strings.Contains(got, not) {
			t.Errorf("%q in\n%s", not, got)
		}
	}
}

func FuzzCharts(f *testing.F) {
	f.Add(sample, "title", "")
	f.Add(`{"measure":"<","value":1e38,"unit":"&","ratio":1e-38}`, "\x00", "&")
	f.Fuzz(func(t *testing.T, in, title, unit string) {
		_, _ = picture(t, in, "--title", title, "--unit="+unit)
	})
}

// Beside each picture of the documentation stand the rows that it shows.
func TestPicturesOfTheDocumentationAreDrawnFromTheirRows(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("other processors round otherwise in the last digit")
	}
	rows, err := os.ReadFile("../../docs/images/tcp.json")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("../../docs/images/tcp.svg")
	if err != nil {
		t.Fatal(err)
	}
	got, err := picture(t, string(rows), "--title", "Channels over TCP and mutual TLS, beside raw TLS")
	if err != nil || got != string(want) {
		t.Errorf("tcp.svg is not what is drawn now (%v): see docs/images/README.md", err)
	}
}
