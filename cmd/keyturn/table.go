package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// table writes aligned columns for people.
type table struct {
	w   *tabwriter.Writer
	err error
}

func newTable(w io.Writer) *table {
	return &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

// row writes one line of cells.
func (t *table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = cell(c)
	}
	line := strings.Join(text, "\t")
	if _, err := fmt.Fprintln(t.w, strings.TrimRight(line, "\t ")); err != nil && t.err == nil {
		t.err = err
	}
}

// line writes text that is part of no column, and begins new columns after it.
func (t *table) line(format string, args ...any) {
	if err := t.flush(); err != nil && t.err == nil {
		t.err = err
	}
	if _, err := fmt.Fprintln(t.w, printable(fmt.Sprintf(format, args...))); err != nil && t.err == nil {
		t.err = err
	}
	_ = t.flush()
}

func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
		return err
	}
	return t.err
}

// cell is a value as people read it: times in local short form, what is absent as "-".
func cell(c any) string {
	switch v := c.(type) {
	case time.Time:
		if v.IsZero() {
			return "-"
		}
		return v.Local().Format("2006-01-02 15:04:05")
	case *time.Time:
		if v == nil {
			return "-"
		}
		return cell(*v)
	case string:
		if v == "" {
			return "-"
		}
		return printable(v)
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case int64:
		return grouped(v)
	case uint64:
		return grouped(int64(v))
	}
	return printable(fmt.Sprint(c))
}

// printable keeps what came from elsewhere from steering the terminal, and from turning the direction of what stands around it or
// hiding in it (category Cf: U+202E, U+200B and their like).
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '.'
		}
		return r
	}, s)
}

// numberOf is a number of things: 1 key, 1,234 keys.
func numberOf(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return grouped(n) + " " + thing + "s"
}

// grouped is a number with its thousands apart: 1,234,567.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	start := len(s) % 3
	var b strings.Builder
	if n < 0 {
		b.WriteByte('-')
		return b.String() + grouped(-n)
	}
	b.WriteString(s[:start])
	for i := start; i < len(s); i += 3 {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(s[i : i+3])
	}
	return b.String()
}
