package accesslog

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxValue bounds the written bytes of one text. A line with all texts stays
// below maxLine.
const (
	maxValue = 1 << 10
	maxLine  = 32 << 10
)

// Bytes that need no escape, in quotes and in bare words.
var inQuotes, inWords = tables()

func tables() (quoted, word [256]bool) {
	for c := ' '; c <= '~'; c++ {
		quoted[c] = c != '"' && c != '\\'
		word[c] = quoted[c] && c != ' ' && c != '='
	}
	return quoted, word
}

// isWord reports whether a text needs no quotes.
func isWord(s string) bool {
	if len(s) > maxValue {
		return false
	}
	for i := range len(s) {
		if !inWords[s[i]] {
			return false
		}
	}
	return s != ""
}

// appendEscaped appends s as the inside of a JSON string that any terminal can
// display, at most maxValue bytes of it; "…" marks a truncated text.
func appendEscaped(b []byte, s string) []byte {
	n := 0
	for n < len(s) && inQuotes[s[n]] {
		n++
	}
	if n == len(s) && n <= maxValue {
		return append(b, s...)
	}
	const more = "…"
	end := len(b) + maxValue - len(more)
	n = min(n, maxValue-len(more))
	b = append(b, s[:n]...)
	for n < len(s) {
		before := len(b)
		r, size := utf8.DecodeRuneInString(s[n:])
		b = appendRune(b, r, size)
		if len(b) > end {
			return append(b[:before], more...)
		}
		n += size
	}
	return b
}

// appendRune appends the escape of a character that was encoded in size bytes.
func appendRune(b []byte, r rune, size int) []byte {
	switch {
	case r < utf8.RuneSelf && inQuotes[r]:
		return append(b, byte(r))
	case r == '"' || r == '\\':
		return append(b, '\\', byte(r))
	case r == '\n':
		return append(b, `\n`...)
	case r == '\r':
		return append(b, `\r`...)
	case r == '\t':
		return append(b, `\t`...)
	case r == utf8.RuneError && size <= 1, r != ' ' && !strconv.IsPrint(r):
		if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
			return appendUnit(appendUnit(b, high), low)
		}
		return appendUnit(b, r)
	}
	return utf8.AppendRune(b, r)
}

// appendUnit appends a code unit of UTF-16 as JSON escapes it.
func appendUnit(b []byte, u rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[u>>12&15], digits[u>>8&15], digits[u>>4&15], digits[u&15])
}
