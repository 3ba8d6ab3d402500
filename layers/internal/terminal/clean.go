package terminal

import (
	"fmt"
	"strings"
	"unicode"
)

// clean makes text harmless to print: a character that could steer the terminal, start a line of its own or change
// the order in which others are read is replaced by a visible one. What remains is one line.
func clean(text string) string {
	var b strings.Builder
	for _, r := range text { // bytes that are not UTF-8 come as U+FFFD, which is visible
		switch {
		case r < 0x20:
			b.WriteRune('\u2400' + r) // the picture of the control character
		case r == 0x7f:
			b.WriteRune('\u2421')
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), unicode.In(r, unicode.Zl, unicode.Zp):
			fmt.Fprintf(&b, "<%U>", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
