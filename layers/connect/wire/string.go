package wire

import (
	"strings"
	"unicode/utf8"
)

// EncodedTextLen is how many bytes text takes between the quotes of a JSON string as this package writes it.
func EncodedTextLen(text string) int {
	n := 0
	for i := 0; i < len(text); {
		if isPlain(text[i]) {
			i, n = i+1, n+1
			continue
		}
		size, encoded := measure(text[i:])
		i, n = i+size, n+encoded
	}
	return n
}

// appendString appends s as a JSON string, in the bytes that encoding/json chooses with HTML escaping off.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	copied := 0
	for i := 0; i < len(s); {
		if isPlain(s[i]) {
			i++
			continue
		}
		size, encoded := measure(s[i:])
		if encoded != size { // every escape is longer than what it stands for
			dst = append(dst, s[copied:i]...)
			dst = appendEscape(dst, s[i:i+size])
			copied = i + size
		}
		i += size
	}
	dst = append(dst, s[copied:]...)
	return append(dst, '"')
}

// Escapes of two bytes: a backslash before the letter at the character's place.
const (
	shortEscaped = "\"\\\b\f\n\r\t"
	shortLetters = `"\bfnrt`
)

// isPlain reports whether a byte is an ASCII character that is written as it is: the common case, decided first.
func isPlain(c byte) bool { return c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' }

// measure answers how many bytes the first character of s takes in s, and in a JSON string.
func measure(s string) (size, encoded int) {
	c := s[0]
	switch {
	case isPlain(c):
		return 1, 1
	case strings.IndexByte(shortEscaped, c) >= 0:
		return 1, 2
	case c < ' ':
		return 1, 6
	}
	r, size := utf8.DecodeRuneInString(s)
	if size == 1 || r == '\u2028' || r == '\u2029' { // not UTF-8, or a line end to JavaScript
		return size, 6
	}
	return size, size
}

// appendEscape appends the escape of one character. A byte that is not UTF-8 becomes U+FFFD.
func appendEscape(dst []byte, s string) []byte {
	if i := strings.IndexByte(shortEscaped, s[0]); i >= 0 {
		return append(dst, '\\', shortLetters[i])
	}
	const hex = "0123456789abcdef"
	r, _ := utf8.DecodeRuneInString(s)
	return append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

func hasNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }
