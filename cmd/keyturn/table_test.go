package main

import "testing"

// What a reason or a name holds can't clear a screen, colour it, or turn the line around it.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain, ünïcödé 日本": "plain, ünïcödé 日本", "a\x1b[31mb": "a.[31mb", "a\nb\tc": "a.b.c", "a\u202eb": "a.b", "a\u200bb\u2066c": "a.b.c", "\u009b2J": ".2J",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}
