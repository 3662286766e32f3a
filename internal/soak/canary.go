package soak

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
)

// Canary is a secret that must not be found anywhere: FAULTS row 15, promise P3.
type Canary struct {
	Name  string
	Value []byte
}

// forms are the spellings under which a leak would hide: raw, hex, base64 in its three alignments and both alphabets,
// URL- and JSON-escaped, reversed. Alignments leave out the edge characters, which depend on the neighbours.
func (c Canary) forms() map[string][]byte {
	reversed := slices.Clone(c.Value)
	slices.Reverse(reversed)
	escaped, err := json.Marshal(string(c.Value))
	if err != nil {
		escaped = nil
	}
	out := map[string][]byte{
		"raw": c.Value, "hex": []byte(hex.EncodeToString(c.Value)), "HEX": bytes.ToUpper([]byte(hex.EncodeToString(c.Value))),
		"url": []byte(url.QueryEscape(string(c.Value))), "reversed": reversed, "json": bytes.Trim(escaped, `"`),
	}
	for shift := range 3 {
		padded := append(make([]byte, shift), c.Value...)
		std := base64.StdEncoding.EncodeToString(padded)
		from := (shift*8 + 5) / 6
		to := len(padded) * 8 / 6
		inner := std[from:to]
		out["base64+"+string(rune('0'+shift))] = []byte(inner)
		out["base64url+"+string(rune('0'+shift))] = []byte(base64.URLEncoding.EncodeToString(padded)[from:to])
	}
	return out
}

// Find says under which form the canary occurs in text, or "".
func (c Canary) Find(text []byte) string {
	for form, pattern := range c.forms() {
		if len(pattern) >= 8 && bytes.Contains(text, pattern) {
			return form
		}
	}
	return ""
}

// Leak is a canary found where it must not be.
type Leak struct{ Canary, Place, Form string }

// Scan searches one place for all canaries.
func Scan(canaries []Canary, place string, text []byte) []Leak {
	var out []Leak
	for _, c := range canaries {
		if form := c.Find(text); form != "" {
			out = append(out, Leak{c.Name, place, form})
		}
	}
	return out
}

// ScanTree searches every file below dir except those that skip names by their base name.
func ScanTree(canaries []Canary, dir string, skip ...string) ([]Leak, int, error) {
	var out []Leak
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || slices.Contains(skip, d.Name()) {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		out = append(out, Scan(canaries, path, text)...)
		return nil
	})
	return out, files, err
}
