package reencrypt

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// pass is one walk through the table, or a part of it:
//
//	reader ── read ──▶ crypto goroutines ── write ──▶ writers ──▶ acks ──▶ save, every saveEvery
//	   ▲                   │                             │
//	   └──── freePages ────┘      freeBatches ◀──────────┘
//
// Pages and batches go around in fixed numbers, one for each stage that works on one: they are the memory of a run, and who runs
// out of them waits. More of them made no run faster. Each stage
// owns what it holds until it passes it on.
type pass struct {
	work *Work
	stop <-chan struct{}
	acks *acks

	freePages   chan *Page
	freeBatches chan *Batch
	read        chan readPage
	write       chan writeBatch
	taking      sync.Mutex // held while a page is taken from read
	left        bool       // a page was read and not begun; guarded by taking
	end         bool       // written by the reader, read after everything has ended
}

// readPage is a page on its way to a crypto goroutine; writeBatch is what it made of it, on its way to a writer.
type (
	readPage struct {
		page *Page
		seq  int
	}
	writeBatch struct {
		batch  *Batch
		result *result
	}
)

// runPass walks from the row after the cursor until the table ends, stop is closed or something fails, and calls save
// about every second and once at the end, with what was acknowledged by then even if it failed. What it answers is what
// was saved last. Closing stop ends the pass in an orderly way: pages that were begun are written.
func runPass(ctx context.Context, w Work, after Key, stop <-chan struct{}, save SaveFunc) (Progress, error) {
	w = w.withDefaults()
	p := &pass{
		work: &w, stop: stop, acks: newAcks(after),
		read: make(chan readPage, 1), write: make(chan writeBatch, 1),
		freePages: make(chan *Page, w.cryptos()+1), freeBatches: make(chan *Batch, w.cryptos()+max(1, w.writers())),
	}
	for range cap(p.freePages) {
		p.freePages <- NewPage(len(w.PK), len(w.Columns))
	}
	for range cap(p.freeBatches) {
		p.freeBatches <- NewBatch(len(w.PK), len(w.Columns))
	}
	err := p.run(ctx, after, save)

	// Whatever ended the pass, what was acknowledged is worth keeping, and ctx may be the very thing that ended it.
	last := p.acks.take()
	last.End = err == nil && p.end && !p.left
	saveErr := save(context.WithoutCancel(ctx), &last)
	return last, errors.Join(err, saveErr)
}

// run starts the stages and waits for all of them. An error of any ends them all.
func (p *pass) run(ctx context.Context, after Key, save SaveFunc) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { defer close(p.read); return p.reader(ctx, after) })

	var cryptos, writers sync.WaitGroup
	start := func(wg *sync.WaitGroup, n int, stage func(context.Context) error) {
		wg.Add(n)
		for range n {
			g.Go(func() error { defer wg.Done(); return stage(ctx) })
		}
	}
	start(&cryptos, p.work.cryptos(), p.crypto)
	g.Go(func() error { cryptos.Wait(); close(p.write); return nil })

	if n := p.work.writers(); n > 0 {
		start(&writers, n, p.writer)
	} else {
		start(&writers, 1, p.discard)
	}
	written := make(chan struct{})
	g.Go(func() error { writers.Wait(); close(written); return nil })
	g.Go(func() error { return p.saver(ctx, written, save) })
	return g.Wait()
}

// reader fills pages until the table or the time ends.
func (p *pass) reader(ctx context.Context, after Key) error {
	r, err := p.work.Target.Reader(ctx)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // a connection that doesn't say goodbye has read all the same
	if err := r.Start(ctx, after, ReadOptions{Rows: p.work.Batch, Skip: p.work.skip()}); err != nil {
		return err
	}
	pace := pace{rate: p.work.Rate}
	for seq := 0; ; seq++ {
		var page *Page
		select {
		case <-p.stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case page = <-p.freePages:
		}
		if err := r.Next(ctx, page); err != nil {
			return err
		}
		if page.Rows() == 0 {
			p.end = true
			return nil
		}
		rows, current := page.Rows(), page.current()
		select {
		case p.read <- readPage{page, seq}:
		case <-p.stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := pace.spend(ctx, rows, current); err != nil {
			return err
		}
	}
}

// crypto works through pages. A batch without a row needs no writer.
func (p *pass) crypto(ctx context.Context) error {
	c := newCrypto(p.work)
	defer c.wipe()
	for {
		in, ok := p.take()
		if !ok {
			return nil
		}
		var b *Batch
		select {
		case b = <-p.freeBatches:
		case <-ctx.Done():
			return ctx.Err()
		}
		r := &result{seq: in.seq, end: in.page.Key(in.page.Rows() - 1)}
		if err := c.page(ctx, in.page, b, r); err != nil {
			return err
		}
		p.freePages <- in.page // never waits: there are no more pages than places
		if b.Rows() == 0 {
			p.acks.ack(r)
			p.freeBatches <- b
			continue
		}
		select {
		case p.write <- writeBatch{b, r}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take is the next page, if there is one and still time to begin it: where passwords are stretched, one may take seconds.
// Pages are taken in their order and none after one that was left, so what was done has no gaps, and all of it counts.
func (p *pass) take() (readPage, bool) {
	p.taking.Lock()
	defer p.taking.Unlock()
	in, ok := <-p.read
	select {
	case <-p.stop:
		p.left = p.left || ok
		return in, false
	default:
		return in, ok
	}
}

// discard stands where writers would in a run that writes nothing.
func (p *pass) discard(context.Context) error {
	for out := range p.write {
		out.result.counts.Changed += int64(out.batch.Rows())
		p.acks.ack(out.result)
		p.freeBatches <- out.batch
	}
	return nil
}

// saver keeps the progress about every second until everything is written.
func (p *pass) saver(ctx context.Context, written <-chan struct{}, save SaveFunc) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-written:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			progress := p.acks.take()
			if err := save(ctx, &progress); err != nil {
				return err
			}
		}
	}
}

// current is the number of rows of which nothing was transferred.
func (p *Page) current() int {
	n := 0
rows:
	for i := range p.Rows() {
		for c := range p.Values {
			if f := p.Values[c].Forms[i]; f != Current && f != Null {
				continue rows
			}
		}
		n++
	}
	return n
}
