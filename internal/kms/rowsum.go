package kms

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// What a MAC can't tell is that a row was put back, whole, to what it once was, or taken away. The sums of rows tell: each
// signed row has a secret number (keyring.Fingerprints), and every transaction that changes rows also changes what the numbers of their buckets
// add up to. A sum is kept sealed together with how often it was written, and every signed checkpoint, in the store and outside,
// says how often each one was: so rows can't go back without their sum, a sum can't without its count, and the count can't
// without the checkpoints. Decision 18 has what was rejected.
//
// A bucket is a part of a table's rows. There are several, so that changes of different keys on different nodes don't wait for
// one another, and so that what is missed can be named.

// bucketsOf lists the tables with how many buckets each has; their numbers count on from table to table. It is frozen:
// checkpoints have one count for each bucket.
var bucketsOf = []struct {
	table string
	n     int
}{{tableKeys, 16}, {tablePrincipals, 4}, {tableTokens, 4}, {tablePolicies, 2}, {tableIncidents, 2}, {tableEntries, 2}, {tableMeta, 1}}

// buckets is how many there are.
const buckets = 31

// bucketOf is the bucket of a row.
func bucketOf(table, row string) int {
	first := 0
	for _, b := range bucketsOf {
		if b.table == table {
			h := sha256.Sum256([]byte(row))
			return first + int(h[0])%b.n
		}
		first += b.n
	}
	panic("kms: no such table: " + table)
}

// tableOf is the table of a bucket.
func tableOf(bucket int) string {
	for _, b := range bucketsOf {
		if bucket < b.n {
			return b.table
		}
		bucket -= b.n
	}
	return "?"
}

// sum is a number modulo 2^256, the least significant word first.
type sum [4]uint64

func sumOf(raw [32]byte) (s sum) {
	for i := range s {
		s[i] = binary.BigEndian.Uint64(raw[24-8*i:])
	}
	return s
}

func (s sum) bytes() (raw [32]byte) {
	for i := range s {
		binary.BigEndian.PutUint64(raw[24-8*i:], s[i])
	}
	return raw
}

func (s *sum) add(o sum) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], o[i], carry)
	}
}

func (s *sum) sub(o sum) {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], o[i], borrow)
	}
}

func (s sum) equal(o sum) bool {
	a, b := s.bytes(), o.bytes()
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// count notes that a row's MAC becomes another, made just now; "" stands for no row. The sums are written when the transaction is about to end.
func (t *attestedTx) count(ctx context.Context, table, row, before, after string) error {
	if t.prints == nil {
		t.prints, t.moved = t.by.ring.Fingerprints(keys.KEKAudit), map[int]sum{}
	}
	if kek, _, ok := strings.Cut(after, ":"); ok {
		t.stands(keys.KEKAudit, keys.KEKID(kek))
	}
	b := bucketOf(table, row)
	moved := t.moved[b]
	for i, mac := range [...]string{before, after} {
		if mac == "" {
			continue
		}
		print, err := t.prints.Of(ctx, table, row, mac)
		if err != nil {
			return fault.Wrap("", err, "adding up the rows of the store")
		}
		if i == 0 {
			moved.sub(sumOf(print))
		} else {
			moved.add(sumOf(print))
		}
	}
	t.moved[b] = moved
	return nil
}

// writeSums brings the sums of the touched buckets up to date, in their order, so that two transactions don't wait for each
// other crosswise. Before the sums are founded there is nothing to do. It gives how often each was written now.
func (t *attestedTx) writeSums(ctx context.Context) (map[int]uint64, error) {
	if t.prints == nil {
		return nil, nil
	}
	defer t.prints.Wipe()
	written := map[int]uint64{}
	for _, b := range slices.Sorted(maps.Keys(t.moved)) {
		old, err := t.Tx.RowSum(ctx, b)
		if fault.CodeOf(err) == api.CodeNotFound && len(written) == 0 && t.seen[b] == 0 {
			return nil, nil
		}
		if err != nil {
			return nil, missing(err, b)
		}
		if old.Seq < t.seen[b] {
			return nil, setBack(b)
		}
		now, err := t.by.openSum(ctx, old)
		if err != nil {
			return nil, err
		}
		now.add(t.moved[b])
		if err := t.putSum(ctx, b, old.Seq+1, now); err != nil {
			return nil, err
		}
		written[b] = old.Seq + 1
	}
	return written, nil
}

func (t *attestedTx) putSum(ctx context.Context, bucket int, seq uint64, s sum) error {
	raw := s.bytes()
	defer clear(raw[:])
	sealed, err := t.by.ring.Seal(ctx, keys.KEKAudit, sumBinding(bucket, seq), raw[:])
	if err != nil {
		return err
	}
	return t.Tx.PutRowSum(ctx, store.RowSum{Bucket: bucket, Seq: seq, Sealed: sealed})
}

func sumBinding(bucket int, seq uint64) keyring.Binding {
	return keyring.Binding{Kind: "row-sum", ID: strconv.Itoa(bucket) + "/" + strconv.FormatUint(seq, 10)}
}

func (a attester) openSum(ctx context.Context, s store.RowSum) (sum, error) {
	raw, err := a.ring.Unseal(ctx, keys.KEKAudit, sumBinding(s.Bucket, s.Seq), s.Sealed)
	if err == nil && len(raw) != 32 {
		err = fault.New(api.CodeIntegrity, "it has another size")
	}
	if fault.CodeOf(err) == api.CodeIntegrity {
		return sum{}, fault.New(api.CodeIntegrity, "the sum of rows of "+tableOf(s.Bucket)+" was not written by keyturn").WithNext(nextRows)
	}
	if err != nil {
		return sum{}, err
	}
	defer clear(raw)
	return sumOf([32]byte(raw)), nil
}

const nextRows = "keep the database as evidence and put its newest state back: docs/runbooks/rows-set-back.md"

func setBack(bucket int) error {
	return fault.New(api.CodeIntegrity, "rows of "+tableOf(bucket)+" were put back to an earlier state: their sum is older than the one that was there").WithNext(nextRows)
}

func missing(err error, bucket int) error {
	if fault.CodeOf(err) != api.CodeNotFound {
		return err
	}
	return fault.New(api.CodeIntegrity, "the sum of rows of "+tableOf(bucket)+" is gone").WithNext(nextRows)
}

// sawBefore is how often each sum had been written when this process last saw it. Ask before a transaction begins, and hold what
// it reads against that: what others commit while it goes on is seen by this process and not by the transaction's snapshot.
func (a *Attested) sawBefore() [buckets]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen
}

func (a *Attested) saw(written map[int]uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for b, n := range written {
		a.seen[b] = max(a.seen[b], n)
	}
}

// SumCounts is how often each sum of rows was written, for a checkpoint to sign: nil before they are founded. tx is one of Attested's own.
// It believes only counts that are sealed with their sums. Errors: integrity when one is missing, was not written by keyturn, or
// is older than one that this process had seen when tx began.
func SumCounts(ctx context.Context, tx store.Tx) ([]uint64, error) {
	t, ok := tx.(*attestedTx)
	if !ok {
		return nil, fault.New(api.CodeInternal, "counting sums of rows: the transaction isn't of the attested store")
	}
	_, counts, err := t.sums(ctx)
	return counts, err
}

// sums reads all sums; none before they are founded.
func (t *attestedTx) sums(ctx context.Context) ([]sum, []uint64, error) {
	stored, err := t.Tx.RowSums(ctx)
	if err != nil {
		return nil, nil, err
	}
	if len(stored) == 0 && t.seen[0] == 0 {
		return nil, nil, nil
	}
	sums, counts := make([]sum, buckets), make([]uint64, buckets)
	for b := range buckets {
		i := slices.IndexFunc(stored, func(s store.RowSum) bool { return s.Bucket == b })
		if i < 0 {
			return nil, nil, missing(errNoSum, b)
		}
		if stored[i].Seq < t.seen[b] {
			return nil, nil, setBack(b)
		}
		if sums[b], err = t.by.openSum(ctx, stored[i]); err != nil {
			return nil, nil, err
		}
		counts[b] = stored[i].Seq
	}
	return sums, counts, nil
}

var errNoSum = fault.New(api.CodeNotFound, "no sum")

// CheckRows walks all signed rows and compares what they add up to with the sums: integrity, naming what was looked at, when rows were put back,
// taken away or added by other hands. It doesn't check the rows' own MACs, which whoever reads them does. Where the sums aren't
// founded yet, because the store is new or of an earlier release, it founds them, unless a node of such a release still
// runs; then founded is false. now is this process's clock.
func (a *Attested) CheckRows(ctx context.Context, now time.Time) (founded bool, err error) {
	var bad map[int][]string
	var counts []uint64
	err = a.View(ctx, func(tx store.Tx) (err error) {
		t := tx.(*attestedTx)
		var kept []sum
		if kept, counts, err = t.sums(ctx); err != nil || kept == nil {
			return err
		}
		bad, err = a.compare(ctx, t.Tx, kept)
		return err
	})
	switch {
	case err != nil:
		return false, err
	case counts == nil:
		return a.found(ctx, now)
	case len(bad) > 0:
		return true, fault.New(api.CodeIntegrity, "rows of the store were put back, taken away or added by other hands: "+named(bad)).WithNext(nextRows)
	}
	a.sawAll(counts)
	return true, nil
}

func (a *Attested) sawAll(counts []uint64) {
	seen := map[int]uint64{}
	for b, n := range counts {
		seen[b] = n
	}
	a.saw(seen)
}

// mostNamed is how many rows of a bucket are named, where there are more.
const mostNamed = 8

// compare adds the rows up and gives the buckets that don't fit with the names of rows in them.
func (a *Attested) compare(ctx context.Context, tx store.Tx, kept []sum) (map[int][]string, error) {
	names := make([][]string, buckets)
	found, err := a.addUp(ctx, tx, func(b int, name string) {
		if len(names[b]) <= mostNamed {
			names[b] = append(names[b], name)
		}
	})
	if err != nil {
		return nil, err
	}
	bad := map[int][]string{}
	for b := range kept {
		if !kept[b].equal(found[b]) {
			bad[b] = names[b]
		}
	}
	return bad, nil
}

// addUp adds up all signed rows. One whose MAC can't be of this store counts as nothing, so that its bucket doesn't fit unless
// it never did.
func (a *Attested) addUp(ctx context.Context, tx store.Tx, name func(bucket int, name string)) ([]sum, error) {
	prints := a.ring.Fingerprints(keys.KEKAudit)
	defer prints.Wipe()
	out := make([]sum, buckets)
	add := func(r store.SignedRow) error {
		b := bucketOf(r.Table, r.ID)
		name(b, r.Name)
		print, err := prints.Of(ctx, r.Table, r.ID, r.MAC)
		switch fault.CodeOf(err) {
		case "":
			out[b].add(sumOf(print))
		case api.CodeIntegrity:
		default:
			return err
		}
		return nil
	}
	if err := tx.EachSignedRow(ctx, add); err != nil {
		return nil, err
	}
	for _, setting := range attestedSettings {
		value, err := tx.Meta(ctx, setting)
		if fault.CodeOf(err) == api.CodeNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := add(store.SignedRow{Table: tableMeta, ID: setting, Name: setting, MAC: settingMAC(value)}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// eachWholeKey walks all keys in one snapshot, as eachKey does, and proves that they are all there are: integrity when one isn't as
// keyturn wrote it, and when what was walked doesn't add up to the sums, because rows were taken away, put back, or have a name by which
// no walk comes to them.
func eachWholeKey(ctx context.Context, tx store.Tx, do func(keys.Key) error) error {
	t, ok := tx.(*attestedTx)
	if !ok {
		return fault.New(api.CodeInternal, "adding up the keys: the transaction isn't of the attested store")
	}
	kept, _, err := t.sums(ctx)
	if err != nil {
		return err
	}
	prints := t.by.ring.Fingerprints(keys.KEKAudit)
	defer prints.Wipe()
	found := make([]sum, buckets)
	err = eachKey(ctx, tx, func(k keys.Key) error {
		if err := t.by.key(ctx, k); err != nil {
			return err
		}
		print, err := prints.Of(ctx, tableKeys, string(k.ID[:]), k.MAC)
		if err != nil {
			return err
		}
		found[bucketOf(tableKeys, string(k.ID[:]))].add(sumOf(print))
		return do(k)
	})
	if err != nil {
		return err
	}
	for b := range kept { // none before they are founded
		if tableOf(b) == tableKeys && !kept[b].equal(found[b]) {
			return fault.New(api.CodeIntegrity, "keys were put back to an earlier state, taken away or hidden by other hands").WithNext(nextRows)
		}
	}
	return nil
}

// found writes the sums of the rows as they are.
func (a *Attested) found(ctx context.Context, now time.Time) (founded bool, err error) {
	err = a.Store.Change(ctx, func(tx store.Tx) error {
		founded = false
		at, err := tx.Now(ctx, now)
		if err != nil {
			return err
		}
		alone, err := tx.SumsKept(ctx, at)
		if err != nil || !alone {
			return err
		}
		if others, err := tx.RowSums(ctx); err != nil || len(others) > 0 { // another node was faster
			founded = true
			return err
		}
		founded = true
		return a.write(ctx, tx, make([]uint64, buckets))
	})
	return founded && err == nil, err
}

// write makes the sums those of the rows as they are, each written once more than after says.
func (a *Attested) write(ctx context.Context, tx store.Tx, after []uint64) error {
	sums, err := a.addUp(ctx, tx, func(int, string) {})
	if err != nil {
		return err
	}
	t := &attestedTx{Tx: tx, by: a.attester()}
	for b, s := range sums {
		if err := t.putSum(ctx, b, after[b]+1, s); err != nil {
			return err
		}
	}
	return nil
}

// AcceptRows takes the rows as they stand for right: what somebody says who has looked at them, after CheckRows or a checkpoint
// has refused them. signed is what the newest checkpoint says of how often each sum was written; nil when it says nothing.
func (a *Attested) AcceptRows(ctx context.Context, signed []uint64) error {
	seen := a.sawBefore()
	return a.Store.Change(ctx, func(tx store.Tx) error {
		stored, err := tx.RowSums(ctx)
		if err != nil {
			return err
		}
		after := make([]uint64, buckets)
		copy(after, signed)
		for _, s := range stored {
			if s.Bucket < buckets {
				after[s.Bucket] = max(after[s.Bucket], s.Seq, seen[s.Bucket])
			}
		}
		return a.write(ctx, tx, after)
	})
}

// named says which rows may be meant, by table.
func named(bad map[int][]string) string {
	of := map[string][]string{}
	for b, names := range bad {
		of[tableOf(b)] = append(of[tableOf(b)], names...)
	}
	var parts []string
	for _, table := range slices.Sorted(maps.Keys(of)) {
		names := slices.Compact(slices.Sorted(slices.Values(of[table])))
		switch {
		case len(names) == 0:
			parts = append(parts, "of "+table+", one that is gone")
		case len(names) > mostNamed:
			parts = append(parts, fmt.Sprintf("of %s, one of %s or others, or one that is gone", table, strings.Join(names[:mostNamed], ", ")))
		default:
			parts = append(parts, fmt.Sprintf("of %s, one of %s, or one that is gone", table, strings.Join(names, ", ")))
		}
	}
	return strings.Join(parts, "; ")
}
