package terminal

import (
	"testing"
	"unicode"
)

func TestClean(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"plain":               {"hello, wörld 你好 👩‍🚀", "hello, wörld 你好 👩‍🚀"},
		"empty":               {"", ""},
		"escape sequence":     {"\x1b[2Jgone", "␛[2Jgone"},
		"title and bell":      {"\x1b]0;t\a", "␛]0;t␇"},
		"one-byte CSI":        {"\u009b31m", "<U+009B>31m"},
		"a line of its own":   {"a\r\n12:00 admin: b", "a␍␊12:00 admin: b"},
		"other line breaks":   {"a\u0085b\u2028c\u2029d", "a<U+0085>b<U+2028>c<U+2029>d"},
		"overwriting":         {"yes\b\b\bno\x7f", "yes␈␈␈no␡"},
		"bidi override":       {"\u202etxt.exe\u202c", "<U+202E>txt.exe<U+202C>"},
		"bidi isolate, marks": {"\u2066a\u2069\u200f\u061c", "<U+2066>a<U+2069><U+200F><U+061C>"},
		"not UTF-8":           {"a\x9b31m\xff", "a\ufffd31m\ufffd"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := clean(test.text); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[31m\u202e\u0085\xff")
	f.Fuzz(func(t *testing.T, text string) {
		got := clean(text)
		for _, r := range got {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("clean(%q) has %U", text, r)
			}
		}
		if again := clean(got); again != got {
			t.Errorf("clean(%q) = %q, which is not clean: %q", text, got, again)
		}
	})
}
