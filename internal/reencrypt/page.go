package reencrypt

// Form is how a value stands in its place.
type Form uint8

// The forms. The zero Form is NULL.
const (
	Null        Form = iota // SQL NULL: never touched
	Text                    // characters: ciphertexts stand there as "kt1." text
	Binary                  // bytes: ciphertexts stand there as they are
	Current                 // not transferred: the database saw that it begins as the caller's Skip does
	TooLarge                // not transferred: longer than MaxValue
	Unsupported             // a number or the like where a database lets any type into any column
)

// Limits of what is in memory at a time. A page ends at its number of rows or at PageBytes, whatever comes first, and a
// value longer than MaxValue is reported, not read: so the memory of a run doesn't grow with the table or its values.
const (
	PageBytes = 2 << 20
	MaxValue  = 8 << 20 // bytes as stored
)

// Key is the primary key of one row in the driver's own bytes: its columns as Cells holds them, in order. A Key is also
// a cursor: reading goes on after it. nil is before the first row. It is stored with jobs and their failures, but never
// travels between databases.
type Key []byte

// Columns splits k into its n columns. ok is false when k is not n whole columns without a NULL.
func (k Key) Columns(n int) (cols [][]byte, ok bool) {
	rest := []byte(k)
	for range n {
		var v []byte
		if v, rest, ok = cutCell(rest); !ok || v == nil {
			return nil, false
		}
		cols = append(cols, v)
	}
	return cols, len(rest) == 0
}

// Column is the values of one ciphertext column in a page. Values[i] is NULL unless Forms[i] is Text or Binary.
type Column struct {
	Values Cells
	Forms  []Form
}

// Add appends one value that was transferred.
func (c *Column) Add(v []byte, f Form) {
	c.Values.Append(v)
	c.Forms = append(c.Forms, f)
}

// AddWithout appends a row whose value wasn't transferred, or is NULL.
func (c *Column) AddWithout(f Form) {
	c.Values.AppendNull()
	c.Forms = append(c.Forms, f)
}

// Page is rows in key order. A reader fills it; it belongs to one goroutine at a time and its memory is used again.
type Page struct {
	Keys   []Cells  // per key column: the driver's own bytes, to find the row again
	Names  []Cells  // per key column: as text, for contexts and for people
	Values []Column // per ciphertext column
}

// NewPage makes a page for so many key and ciphertext columns.
func NewPage(keys, columns int) *Page {
	return &Page{Keys: make([]Cells, keys), Names: make([]Cells, keys), Values: make([]Column, columns)}
}

// Rows is the number of rows.
func (p *Page) Rows() int { return p.Keys[0].Len() }

// Size is the number of bytes that the rows take.
func (p *Page) Size() int {
	n := 0
	for i := range p.Keys {
		n += p.Keys[i].Size() + p.Names[i].Size()
	}
	for i := range p.Values {
		n += p.Values[i].Values.Size()
	}
	return n
}

// Reset forgets the rows.
func (p *Page) Reset() {
	for i := range p.Keys {
		p.Keys[i].Reset()
		p.Names[i].Reset()
	}
	for i := range p.Values {
		p.Values[i].Values.Reset()
		p.Values[i].Forms = p.Values[i].Forms[:0]
	}
}

// Key is a copy of the key of row i.
func (p *Page) Key(i int) Key { return keyAt(p.Keys, i) }

func keyAt(keys []Cells, i int) (k Key) {
	for c := range keys {
		k = append(k, keys[c].Range(i, i+1)...)
	}
	return k
}

// Batch is what goes back: for each row its key and, per ciphertext column, the value that must still stand there and the
// one to put in its place. Both are NULL in a column that stays as it is. Old and New have the same form.
type Batch struct {
	Keys  []Cells
	Names []Cells // the keys as text, for the dead-letter list
	Old   []Column
	New   []Column
}

// NewBatch makes a batch for so many key and ciphertext columns.
func NewBatch(keys, columns int) *Batch {
	return &Batch{Keys: make([]Cells, keys), Names: make([]Cells, keys), Old: make([]Column, columns), New: make([]Column, columns)}
}

// Rows is the number of rows.
func (b *Batch) Rows() int { return b.Keys[0].Len() }

// Reset forgets the rows.
func (b *Batch) Reset() {
	for i := range b.Keys {
		b.Keys[i].Reset()
		b.Names[i].Reset()
	}
	for i := range b.Old {
		b.Old[i].Values.Reset()
		b.Old[i].Forms = b.Old[i].Forms[:0]
		b.New[i].Values.Reset()
		b.New[i].Forms = b.New[i].Forms[:0]
	}
}

// addKey copies the key of row i of p; the values follow, column by column.
func (b *Batch) addKey(p *Page, i int) {
	for c := range p.Keys {
		b.Keys[c].Append(p.Keys[c].At(i))
		b.Names[c].Append(p.Names[c].At(i))
	}
}
