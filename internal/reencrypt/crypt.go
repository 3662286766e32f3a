package reencrypt

import (
	"bytes"
	"context"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// crypto turns pages into batches. It belongs to one goroutine; its buffers are used again.
type crypto struct {
	work    *Work
	openers []map[uint32]opener // per column
	newest  []uint32            // per column: the newest version since the page at hand was read; 0 = not asked yet

	names   [][]byte // texts of the key of the row at hand
	context []byte
	blob    []byte
	plain   []byte
	sealed  []byte
	was     []uint32 // per column: the version that the row at hand is moved from; 0 = none
	seen    int      // values that verify has met, for its sample
}

// opener is a handle, or why there is none.
type opener struct {
	key *envelope.Key
	err error
}

// result is what became of one page.
type result struct {
	seq    int
	end    Key // of its last row
	counts Counts
	failed []Failed
	was    []uint32 // of the rows of the batch, one behind the other: per column, the version that it is moved from; 0 = none
	moved  map[VersionOf]int64
	sealed []spent
}

// spent is what was sealed for one column.
type spent struct{ operations, bytes uint64 }

func newCrypto(w *Work) *crypto {
	c := &crypto{
		work: w, openers: make([]map[uint32]opener, len(w.Columns)), newest: make([]uint32, len(w.Columns)), names: make([][]byte, len(w.PK)),
		was: make([]uint32, len(w.Columns)),
	}
	for i := range c.openers {
		c.openers[i] = map[uint32]opener{}
	}
	return c
}

// verdict is what is to be done with one value.
type verdict int

const (
	leave  verdict = iota
	change         // its replacement was appended to the batch
)

// page works through p and puts the rows to write into b. An error ends the chunk: nothing of the page counts then.
func (c *crypto) page(ctx context.Context, p *Page, b *Batch, r *result) error {
	b.Reset()
	r.moved = map[VersionOf]int64{}
	r.sealed = make([]spent, len(c.work.Columns))
	clear(c.newest)
	r.counts.Rows = int64(p.Rows())
	for i := range p.Rows() {
		for k := range c.names {
			c.names[k] = p.Names[k].At(i)
		}
		changed := false
		clear(c.was)
		for col := range p.Values {
			v, err := c.value(ctx, p, b, r, i, col, changed)
			if err != nil {
				return err
			}
			switch {
			case v == change && !changed:
				changed = true
				b.addKey(p, i)
			case v == leave && changed:
				b.Old[col].AddWithout(Null)
				b.New[col].AddWithout(Null)
			}
		}
		if changed {
			r.was = append(r.was, c.was...)
		} else {
			r.counts.Skipped++
		}
	}
	for i, s := range r.sealed {
		if s.operations > 0 && !c.work.DryRun {
			if err := c.work.Columns[i].Keys.Spend(ctx, s.operations, s.bytes); err != nil {
				return err
			}
		}
	}
	return nil
}

// value looks at one value. When it is to be changed, the old and new one are in the batch afterwards, and, if it is the
// first of its row, a NULL for each column before it.
func (c *crypto) value(ctx context.Context, p *Page, b *Batch, r *result, row, col int, changed bool) (verdict, error) {
	v, form := p.Values[col].Values.At(row), p.Values[col].Forms[row]
	fail := func(reason string) (verdict, error) {
		r.counts.Failed++
		r.failed = append(r.failed, Failed{Key: p.Key(row), Item: itemText(c.names), Column: c.work.Columns[col].Name, Reason: reason})
		return leave, nil
	}
	switch form {
	case Null:
		r.counts.Null++
		return leave, nil
	case Current:
		return leave, nil
	case TooLarge:
		r.counts.Unreadable++
		r.counts.Stuck++
		return fail("the value is longer than 8 MiB")
	case Unsupported:
		r.counts.Plaintext++
		if c.work.Kind != KindEncrypt {
			return leave, nil
		}
		r.counts.Stuck++
		return fail("the value is neither text nor bytes")
	}
	if bytes.HasPrefix(v, envelopeMagic) { // to seal it once more would take it from its readers
		r.counts.Unreadable++
		if c.counted(v, form, col) {
			r.counts.Stuck++
		}
		return fail("it is a message of the SDK's Envelope (kte1.), which holds its own data key")
	}
	h, ours, reason := c.inspect(v, form, col)
	stuck := func(reason string) (verdict, error) { // one that a census will go on counting as work to be done
		r.counts.Stuck++
		return fail(reason)
	}
	switch {
	case reason != "":
		r.counts.Unreadable++
		if c.counted(v, form, col) {
			r.counts.Stuck++
		}
		return fail(reason)
	case !ours:
		if c.work.Import == nil {
			r.counts.Plaintext++
		}
		if c.work.Kind != KindEncrypt {
			return leave, nil
		}
		if c.work.Import == nil {
			c.plain = append(c.plain[:0], v...)
			break
		}
		if err := ctx.Err(); err != nil { // a stretched password takes its time
			return leave, err
		}
		if reason := c.foreign(r, v, form); reason != "" {
			return stuck(reason)
		}
	case c.work.Kind == KindEncrypt || c.work.Kind == KindReencrypt && h.Version == c.work.Columns[col].Keys.Current().Header().Version:
		return leave, nil
	case c.work.Kind == KindReencrypt && h.Version > c.work.Columns[col].Keys.Current().Header().Version:
		known, err := c.exists(ctx, h, col)
		if err != nil || known { // somebody rotated after this chunk began; the next one will know
			return leave, err
		}
		r.counts.Unreadable++
		return stuck("it names a version that its key doesn't have")
	default:
		if c.work.Kind == KindVerify {
			if c.seen++; (c.seen-1)%c.work.Sample != 0 {
				r.counts.NotSampled++
				return leave, nil
			}
		}
		reason, err := c.open(ctx, h, col)
		if err != nil {
			return leave, err
		}
		if reason != "" {
			r.counts.Unreadable++
			return stuck(reason)
		}
		r.counts.Opened++
		if c.work.Kind == KindVerify {
			return leave, nil
		}
		if c.work.Kind == KindDecrypt && form == Text && !utf8.Valid(c.plain) {
			return stuck("the plaintext isn't text, but the column is")
		}
	}
	out, err := c.replace(b, r, v, form, col, changed, stuck)
	if out == change {
		c.was[col] = h.Version
	}
	return out, err
}

// replace appends the old value and what is to stand in its place: c.plain, sealed unless the run decrypts.
func (c *crypto) replace(b *Batch, r *result, v []byte, form Form, col int, changed bool, stuck func(string) (verdict, error)) (verdict, error) {
	out := c.plain
	if c.work.Kind.seals() {
		ctx, err := c.bind(col)
		if err != nil {
			return stuck(fault.MessageOf(err))
		}
		c.sealed, err = c.work.Columns[col].Keys.Current().Seal(c.sealed[:0], c.plain, ctx)
		if err != nil {
			return leave, err
		}
		out = c.sealed
		r.sealed[col].operations++
		r.sealed[col].bytes += uint64(len(c.plain))
		if reason := c.tooWide(form, col); reason != "" {
			return stuck(reason)
		}
	}
	for before := 0; !changed && before < col; before++ {
		b.Old[before].AddWithout(Null)
		b.New[before].AddWithout(Null)
	}
	b.Old[col].Add(v, form)
	if form == Text && c.work.Kind.seals() {
		b.New[col].Forms = append(b.New[col].Forms, form)
		return change, b.New[col].Values.AppendFunc(func(dst []byte) ([]byte, error) { return envelope.AppendText(dst, out), nil })
	}
	b.New[col].Add(out, form)
	return change, nil
}

// inspect says whether a value is one of our ciphertexts of this column's key. reason is set for one that looks like a
// ciphertext and isn't one of this column's. The binary form is in c.blob afterwards.
func (c *crypto) inspect(v []byte, form Form, col int) (h envelope.Header, ours bool, reason string) {
	if !envelope.LooksLikeCiphertext(v) {
		return h, false, ""
	}
	c.blob = c.blob[:0]
	if form == Text {
		blob, err := envelope.AppendDecodedText(c.blob, v)
		if err != nil {
			return h, false, "it begins like a ciphertext, but isn't one: changed, cut short, or never one of ours"
		}
		c.blob = blob
	} else {
		c.blob = append(c.blob, v...)
	}
	info, err := envelope.Inspect(c.blob)
	switch {
	case err != nil:
		return h, false, "it begins like a ciphertext, but isn't one: changed, cut short, or never one of ours"
	case info.KeyID != c.work.Columns[col].Keys.ID():
		return h, false, "it is a ciphertext of another key"
	}
	return info.Header, true, ""
}

// exists says whether a column's key has the version of h. The key is read after the page was, and once for it: a version that
// values of the page stand under was there before them, so nothing is called unknown because it is new.
func (c *crypto) exists(ctx context.Context, h envelope.Header, col int) (bool, error) {
	if c.newest[col] == 0 {
		n, err := c.work.Columns[col].Keys.Newest(ctx)
		if err != nil {
			return false, err
		}
		c.newest[col] = n
	}
	return h.Version <= c.newest[col], nil
}

// counted says whether a census goes on counting a value that can't be read as work to be done: it does so by the first
// bytes alone, so one that was cut short behind its header still stands under a version of this column's key.
func (c *crypto) counted(v []byte, form Form, col int) bool {
	n := envelope.PrefixLen
	switch {
	case bytes.HasPrefix(v, envelopeMagic):
		n++
	case form == Binary:
		n = envelope.HeaderSize
	}
	return c.work.Kind.remains(Group{Form: form, Prefix: v[:min(len(v), n)]}, c.work.Columns[col].Keys)
}

// open opens c.blob into c.plain under the context of the row at hand.
func (c *crypto) open(ctx context.Context, h envelope.Header, col int) (reason string, err error) {
	o, ok := c.openers[col][h.Version]
	if !ok {
		o.key, o.err = c.work.Columns[col].Keys.Opener(ctx, h.Version)
		// What was never a version is asked again: it costs nothing, and forged values name as many as there are.
		if o.err == nil || condemned(o.err) && fault.CodeOf(o.err) != api.CodeNotFound {
			c.openers[col][h.Version] = o
		}
	}
	if o.err != nil {
		if condemned(o.err) {
			return fault.MessageOf(o.err), nil
		}
		return "", o.err
	}
	bound, err := c.bind(col)
	if err != nil {
		return fault.MessageOf(err), nil
	}
	c.plain, err = o.key.Open(c.plain[:0], c.blob, bound)
	switch {
	case err == nil:
		return "", nil
	case condemned(err):
		return "it doesn't open: changed, or sealed for another row, column or context", nil
	}
	return "", err
}

// condemned tells an error that is about one value from one that is about the key, the store or the time.
func condemned(err error) bool {
	switch fault.CodeOf(err) {
	case api.CodeIntegrity, api.CodeWrongState, api.CodeNotFound:
		return true
	}
	return false
}

// bind is the context of one column in the row at hand. It comes from the row's key and the dataset's template alone, for
// opening and for sealing: nothing that a caller says can widen what a ciphertext is bound to.
func (c *crypto) bind(col int) (envelope.Context, error) {
	out, err := c.work.Columns[col].Context.AppendContext(c.context[:0], c.names)
	if err != nil {
		return nil, err
	}
	c.context = out
	return out, nil
}

// wipe overwrites what is left of plaintexts.
func (c *crypto) wipe() {
	clear(c.plain[:cap(c.plain)])
	clear(c.blob[:cap(c.blob)])
}
