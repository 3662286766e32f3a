package httpapi

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"sync/atomic"
)

// requestIDs makes the ids that join an answer with its audit record and log lines: a random part for each start of the
// process and a count. They are no secret. What a client sends as X-Request-Id is not looked at: it would be a way to
// write into the audit log.
type requestIDs struct {
	prefix string
	count  atomic.Uint64
}

func (ids *requestIDs) seed() {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	ids.prefix = hex.EncodeToString(b[:]) + "-"
}

func (ids *requestIDs) next() string {
	var b [40]byte
	return string(strconv.AppendUint(append(b[:0], ids.prefix...), ids.count.Add(1), 16))
}
