package reencrypt

import (
	"bytes"
	"hash/fnv"
	"strconv"
	"strings"
)

// maxItem is the most bytes of a key that a dead-letter list shows.
const maxItem = 400

// itemText is a row's key as people read it: its text, or (a, b) for several columns. A long one ends in a hash, which
// keeps two of them apart that begin alike and says nothing that the key itself doesn't.
func itemText(names [][]byte) string {
	s := string(bytes.Join(names, []byte(", ")))
	if len(names) > 1 {
		s = "(" + s + ")"
	}
	if s = strings.ToValidUTF8(s, "?"); len(s) <= maxItem {
		return s
	}
	h := fnv.New64a()
	for _, n := range names {
		_, _ = h.Write(n) // never fails
	}
	return strings.ToValidUTF8(s[:maxItem], "") + "… #" + strconv.FormatUint(h.Sum64(), 36)
}
