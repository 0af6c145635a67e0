package codes

import (
	"crypto/rand"
	"encoding/binary"
	"math/big"
	"slices"
	"strings"
	"sync"

	"github.com/schollz/mnemonicode"
)

// listLen is how many words the mnemonic word list has (Oren Tirosh, version
// 0.7): 4 to 7 letters, none the beginning of another, chosen to be told apart
// by ear.
const listLen = 1626

// list is the word list. The library does not show it, but encodes a number
// below listLen as that word.
var list = sync.OnceValue(func() []string {
	words := make([]string, listLen)
	for i := range words {
		words[i] = mnemonicode.EncodeWordList(nil, binary.LittleEndian.AppendUint32(nil, uint32(i)))[0]
	}
	slices.Sort(words)
	return words
})

// isWord tells whether a lower-case word is of the list.
func isWord(w string) bool {
	_, found := slices.BinarySearch(list(), w)
	return found
}

// NewWords returns the secret part of a new code: two words of the list, each
// chosen at random, with a minus sign between them.
func NewWords() string { return randomWord() + "-" + randomWord() }

func randomWord() string {
	n, err := rand.Int(rand.Reader, big.NewInt(listLen))
	if err != nil {
		panic(err) // crypto/rand's reader never fails
	}
	return list()[n.Int64()]
}

// Complete returns the codes or beginnings of codes that what was typed may
// become when its last word is completed, in alphabetical order: none after a
// number alone, nor after two whole words.
func Complete(typed string) []string {
	norm := normalise(typed)
	cut := strings.LastIndexByte(norm, '-')
	if n := strings.Count(norm, "-"); n < 1 || n > 2 {
		return nil
	}
	before, last := norm[:cut+1], norm[cut+1:]
	words := list()
	i, _ := slices.BinarySearch(words, last)
	var all []string
	for ; i < len(words) && strings.HasPrefix(words[i], last); i++ {
		if words[i] != last {
			all = append(all, before+words[i])
		}
	}
	return all
}

// nearest returns the word of the list that w was perhaps meant to be, or "".
func nearest(w string) string {
	best, bestAt := "", 3 // more than two wrong letters could be any word
	for _, c := range list() {
		if len(w) >= 3 && strings.HasPrefix(c, w) {
			return c
		}
		if d := distance(w, c); d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

// distance is how many letters have to be put in, taken out or replaced to make
// b of a. Both are short.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
