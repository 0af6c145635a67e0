package codes

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCodesAreReadAsPeopleTypeThem(t *testing.T) {
	for _, typed := range []string{
		"7-amber-mango", "7 amber mango", " 7-Amber-MANGO\r\n", "07-amber-mango", "7, amber; mango.", "«7»–amber—mango", "7--amber - mango", "-7-amber-mango-",
	} {
		got, err := Parse(typed)
		if err != nil || got != code {
			t.Errorf("Parse(%q) = %v, %v", typed, got, err)
		}
	}
	if got := code.String(); got != "7-amber-mango" {
		t.Errorf("String() = %q", got)
	}
}

func TestWhatIsNoCodeIsRefusedWithTheReason(t *testing.T) {
	for typed, want := range map[string]string{
		"":                         "a number and two words",
		"7":                        "a number and two words",
		"7-amber":                  "a number and two words",
		"7-amber-mango-mango":      "a number and two words",
		"amber-mango-7":            `a number from 1 to 9999, not with "amber"`,
		"0-amber-mango":            "a number from 1 to 9999",
		"10000-amber-mango":        "a number from 1 to 9999",
		"+7-x-mango":               `"x" is none of the words`,
		"7-ambr-mango":             `perhaps it is "amber"`,
		"7-amber-mang":             `perhaps it is "mango"`,
		"7-amber-qqqqqqq":          `"qqqqqqq" is none of the words that codes are made of`,
		"7-\x1b[2J-mango":          `"2j" is none of the words`,
		strings.Repeat("7-a", 400): "it has 1200 characters",
	} {
		_, err := Parse(typed)
		if !errors.Is(err, ErrCode) || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%.40q): %v, want %q", typed, err, want)
		}
	}
}

func TestTheListIsTheWholeListAndNoWordBeginsAnother(t *testing.T) {
	words := list()
	if len(slices.Compact(slices.Clone(words))) != listLen {
		t.Fatalf("%d different words, want %d", len(slices.Compact(words)), listLen)
	}
	for i, w := range words {
		if len(w) < 4 || len(w) > 7 || strings.Trim(w, "abcdefghijklmnopqrstuvwxyz") != "" {
			t.Errorf("word %q", w)
		}
		if i > 0 && strings.HasPrefix(w, words[i-1]) {
			t.Errorf("%q begins %q", words[i-1], w)
		}
	}
}

func TestNewWordsAreTwoOfTheListAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		w := NewWords()
		c, err := Parse("1-" + w)
		if err != nil || c.Words != w {
			t.Fatalf("words %q: %v, %v", w, c, err)
		}
		seen[w] = true
	}
	if len(seen) < 990 { // of 2 643 876 pairs; fewer come once in 10^20 times
		t.Errorf("%d different pairs in 1000", len(seen))
	}
}

func TestCompletionOffersWhatMayFollow(t *testing.T) {
	for typed, want := range map[string][]string{
		"":                   nil,
		"7":                  nil,
		"7-amb":              {"7-amber", "7-ambient"},
		"7 AMBI":             {"7-ambient"},
		"7-amber":            nil,
		"7-amber-mang":       {"7-amber-mango"},
		"7-amber-mango-":     nil,
		"7-amber-qq":         nil,
		"7-amber-mango-mang": nil,
	} {
		if got := Complete(typed); !slices.Equal(got, want) {
			t.Errorf("Complete(%q) = %q, want %q", typed, got, want)
		}
	}
	if got := Complete("7-amber-"); len(got) != listLen {
		t.Errorf("%d completions of an empty word, want all %d", len(got), listLen)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"7-amber-mango", "7 Amber mango", "", "-", "0-a-b", "9999 amber\x00mango", "7-\u202eamber-mango"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		c, err := Parse(typed)
		Complete(typed)
		if err != nil {
			return
		}
		if again, err := Parse(c.String()); err != nil || again != c {
			t.Errorf("%q is read as %v, which is read as %v, %v", typed, c, again, err)
		}
	})
}
