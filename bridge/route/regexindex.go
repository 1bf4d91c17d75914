package route

import (
	"encoding/binary"
	"regexp/syntax"
	"unicode/utf8"
)

const (
	gramBytes = 4 // length of a gram

	// maxGrams bounds the grams of an index, so that the set of a path's grams
	// fits on the stack.
	maxGrams = 4096

	// minIndexed is the smallest number of expressions for which an index is faster
	// than trying all of them.
	minIndexed = 8
)

// A regexIndex finds the expressions that can match a path. It files most of them under
// a gram: four bytes that every path they match contains. The zero value holds no
// expressions. It is immutable.
type regexIndex struct {
	grams map[uint32]gramUsers
	rest  []int32 // positions of expressions without a gram, ascending
}

// gramUsers holds the expressions filed under a gram.
type gramUsers struct {
	id int     // number of the gram, below maxGrams
	at []int32 // the expressions' positions, ascending
}

// newRegexIndex indexes expressions by their positions.
func newRegexIndex(n int, regex func(i int) *regex) regexIndex {
	var x regexIndex
	users := map[uint32]int{} // the number of expressions that require each gram
	if n >= minIndexed {
		x.grams = map[uint32]gramUsers{}
		for i := range n {
			for _, g := range regex(i).grams {
				users[g]++
			}
		}
	}
	for i := range n {
		gram, fewest := uint32(0), 0
		for _, g := range regex(i).grams {
			if u := users[g]; u > 0 && (fewest == 0 || u < fewest) {
				gram, fewest = g, u
			}
		}
		filed, known := x.grams[gram]
		if fewest == 0 || !known && len(x.grams) == maxGrams {
			x.rest = append(x.rest, int32(i))
			continue
		}
		if !known {
			filed.id = len(x.grams)
		}
		filed.at = append(filed.at, int32(i))
		x.grams[gram] = filed
	}
	return x
}

// first returns the lowest position below limit for which the expression can match the
// path and matches reports true. If there is no such position, it returns limit. It
// allocates nothing if matches does not escape.
func (x *regexIndex) first(path string, limit int, matches func(i int) bool) int {
	try := func(positions []int32) {
		for _, i := range positions {
			if int(i) >= limit {
				return
			}
			if matches(int(i)) {
				limit = int(i)
				return
			}
		}
	}
	try(x.rest)
	if len(x.grams) == 0 {
		return limit
	}
	// If a path repeats a gram thousands of times, the expressions of the gram are
	// still tried only once.
	var seen [maxGrams / 64]uint64
	for i := 0; i+gramBytes <= len(path); i++ {
		filed, ok := x.grams[gramOf(path[i:])]
		if !ok {
			continue
		}
		if word, bit := &seen[filed.id/64], uint64(1)<<(filed.id%64); *word&bit == 0 {
			*word |= bit
			try(filed.at)
		}
	}
	return limit
}

// gramOf returns the first gram of s, which must have one.
func gramOf(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

// requiredGrams returns grams that every match of the expression contains.
func requiredGrams(re *syntax.Regexp) []uint32 {
	var grams []uint32
	eachLiteral(re, func(literal []byte) {
		for ; len(literal) >= gramBytes; literal = literal[1:] {
			grams = append(grams, binary.LittleEndian.Uint32(literal))
		}
	})
	return grams
}

// eachLiteral calls f with texts that every match of the expression contains.
func eachLiteral(re *syntax.Regexp, f func([]byte)) {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return
		}
		var literal []byte
		for _, r := range re.Rune {
			if r == utf8.RuneError { // also matches bytes that are not UTF-8
				f(literal)
				literal = nil
				continue
			}
			literal = utf8.AppendRune(literal, r)
		}
		f(literal)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			eachLiteral(sub, f)
		}
	case syntax.OpCapture, syntax.OpPlus:
		eachLiteral(re.Sub[0], f)
	case syntax.OpRepeat:
		if re.Min > 0 {
			eachLiteral(re.Sub[0], f)
		}
	}
}
