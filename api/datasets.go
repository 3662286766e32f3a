package api

import "time"

// Dataset is a registered place in somebody's database that holds our ciphertexts. Database is the connection URL without
// its password. Context is the template of what every ciphertext is bound to.
type Dataset struct {
	Dataset  string            `json:"dataset"`
	Database string            `json:"database"`
	Table    string            `json:"table"`
	PK       []string          `json:"pk"`
	Columns  []DatasetColumn   `json:"columns"`
	Context  map[string]string `json:"context,omitempty"`
	Created  time.Time         `json:"created"`
	Notes    []string          `json:"notes,omitempty"` // what work on the table will do: bloat, triggers, log volume
}

// DatasetColumn says which key protects a column. Type is the database's own name of the column's type.
type DatasetColumn struct {
	Column string `json:"column"`
	Key    string `json:"key"`
	Type   string `json:"type,omitempty"`
	// Foreign says that the values were another system's ciphertexts when the dataset was added.
	Foreign bool `json:"foreign,omitempty"`
}

// DatasetList is every dataset in name order.
type DatasetList struct {
	Datasets []Dataset `json:"datasets"`
}

// AddDatasetRequest registers a dataset. Exactly one of DB (a URL; its password is sealed in the store) and DBEnv (the
// name of an environment variable of the server that holds the URL) is set. Table may be "schema.table".
type AddDatasetRequest struct {
	Name    string            `json:"name"`
	DB      string            `json:"db,omitempty"`
	DBEnv   string            `json:"dbEnv,omitempty"`
	Table   string            `json:"table"`
	PK      []string          `json:"pk,omitempty"` // default: the table's own primary key
	Columns map[string]string `json:"columns"`      // column -> key
	Context map[string]string `json:"context,omitempty"`
	// Unbound lets Context leave out parts of the primary key. Ciphertexts can then be moved between rows unnoticed: for
	// applications that seal before they know the row.
	Unbound bool `json:"unbound,omitempty"`
	// Foreign says that the values are ciphertexts of another system, which `dataset encrypt` with a From will open: that they
	// are longer than their plaintexts is no reason to call the column too narrow. It is remembered: encrypt without a From is
	// refused then, unless the request says Plaintext.
	Foreign bool `json:"foreign,omitempty"`
}

// Census counts, per column, what its values stand under now. It is taken after a durable flush of the database.
type Census struct {
	Dataset string         `json:"dataset"`
	Rows    int64          `json:"rows"`
	TakenAt time.Time      `json:"takenAt"`
	Columns []CensusColumn `json:"columns"`
}

// CensusColumn is one column's counts: null, plaintext (not ours), unreadable (looks like ours but unknown key, version or broken form).
type CensusColumn struct {
	Column     string          `json:"column"`
	Key        string          `json:"key"`
	Null       int64           `json:"null"`
	Plaintext  int64           `json:"plaintext"`
	Unreadable int64           `json:"unreadable"`
	Versions   []CensusVersion `json:"versions"`
}

// CensusVersion counts values under one key version.
type CensusVersion struct {
	Key     string `json:"key"`
	Version uint32 `json:"version"`
	State   string `json:"state"`
	Rows    int64  `json:"rows"`
}

// DatasetRunRequest starts encrypt, reencrypt, verify or decrypt of a dataset. Zero values mean the documented defaults.
type DatasetRunRequest struct {
	Workers   int  `json:"workers,omitempty"`   // crypto goroutines and writers; default 2
	BatchSize int  `json:"batchSize,omitempty"` // rows a page; default 2000 unthrottled, 200 throttled
	Rate      int  `json:"rate,omitempty"`      // rows per second at most; 0 = default (see Unthrottled)
	DryRun    bool `json:"dryRun,omitempty"`
	// Unthrottled lets the job take all the database gives. Default: throttled to 15,000 rows/s so that an application's p99 keeps.
	Unthrottled bool `json:"unthrottled,omitempty"`
	// Sample, for verify: open every Nth value only; 0 or 1 = all.
	Sample int `json:"sample,omitempty"`
	// From, for encrypt: the values were encrypted by another system; they are opened and sealed anew.
	From *DatasetSource `json:"from,omitempty"`
	// Plaintext, for encrypt without From, of a dataset that was added with Foreign: what isn't keyturn's is plaintext by now,
	// and is sealed as it is.
	Plaintext bool `json:"plaintext,omitempty"`
}

// DatasetSource says how another system encrypted the values of a dataset, and holds the keys with which it may have done
// so. It asks for key.encrypt and key.decrypt on the key of every column.
type DatasetSource struct {
	// Format is fernet, aes-256-cbc or pgcrypto. Layout is how a value is put together: of fernet token; of aes-256-cbc iv
	// (the default), iv-hmac or openssl; of pgcrypto pgp (the default), raw or raw-iv.
	Format string `json:"format"`
	Layout string `json:"layout,omitempty"`
	// Keys are the candidates, 1 to 16, as bytes: keys, or passwords for openssl and pgp. They are kept sealed with the job,
	// until it ends, and nowhere else.
	Keys [][]byte `json:"keys"`
	// Encoding of values: auto (the default), raw, base64 or hex.
	Encoding string `json:"encoding,omitempty"`
	// IV, for pgcrypto raw: 32 hexadecimal digits; default zeroes. Iterations, for openssl: of PBKDF2; default 10000.
	IV         string `json:"iv,omitempty"`
	Iterations int    `json:"iterations,omitempty"`
	// Unauthenticated accepts values that nothing verifies, and asks for Expect: utf8, any, or a regular expression (RE2)
	// that fits a whole plaintext.
	Unauthenticated bool   `json:"unauthenticated,omitempty"`
	Expect          string `json:"expect,omitempty"`
	// PlaintextToo also seals values that aren't in the format. Default: they are left and listed as failed. Not for layouts
	// whose values can't be told from plaintext.
	PlaintextToo bool `json:"plaintextToo,omitempty"`
}

// DatasetCandidate says how many values a candidate key of a DatasetSource opened. The fingerprint tells candidates apart,
// in this store only.
type DatasetCandidate struct {
	Fingerprint string `json:"fingerprint"`
	Values      int64  `json:"values"`
}

// DatasetRun is what `dataset encrypt|reencrypt|verify|decrypt` print at the end (or at once with --detach). Rows, Changed and
// Skipped (rows in which nothing was to be changed) count rows, the others values. Of a verification Opened, Plaintext, Null,
// NotSampled and Failed add up to all values of all columns.
type DatasetRun struct {
	Job           string  `json:"job"`
	State         string  `json:"state"`
	Rows          int64   `json:"rows"`
	Changed       int64   `json:"changed"`
	Skipped       int64   `json:"skipped"`
	Conflicts     int64   `json:"conflicts"`
	Failed        int64   `json:"failed"`
	Seconds       float64 `json:"seconds"`
	RowsPerSecond float64 `json:"rowsPerSecond"`
	Opened        int64   `json:"opened"`     // values that were opened, with the right key in their place
	Plaintext     int64   `json:"plaintext"`  // values that aren't ours: plaintext, or what another system encrypted
	Null          int64   `json:"null"`       // values that are NULL
	NotSampled    int64   `json:"notSampled"` // values that a verification of every Nth value left unopened
	DryRun        bool    `json:"dryRun,omitempty"`
	Error         string  `json:"error,omitempty"`
	// From and Candidates, of an encrypt with a DatasetSource: its format and layout, and the candidates in their order.
	From       string             `json:"from,omitempty"`
	Candidates []DatasetCandidate `json:"candidates,omitempty"`
	// Keeps is in the answer to a start that found the work under way with other settings than the request names: the job keeps its own.
	Keeps *DatasetSettings `json:"keeps,omitempty"`
}

// DatasetSettings is how a job works on a dataset. A Rate of 0 is no limit. Urgent says that it answers an incident, which goes
// faster than what was set.
type DatasetSettings struct {
	Workers   int  `json:"workers"`
	BatchSize int  `json:"batchSize"`
	Rate      int  `json:"rate"`
	Sample    int  `json:"sample"`
	Urgent    bool `json:"urgent,omitempty"`
}

// Job is durable work. Total is an estimate until the job is done; Run holds a dataset job's counts. Error is why a job
// failed or waits, or how many values one that is done could not do. NextAttempt is
// there while a queued job waits for it; retrying or resuming the job makes that attempt now.
type Job struct {
	ID       string      `json:"id"`
	Kind     string      `json:"kind"`
	State    string      `json:"state"`
	Subject  string      `json:"subject"` // e.g. dataset/patients
	Done     int64       `json:"done"`
	Total    int64       `json:"total"`
	Created  time.Time   `json:"created"`
	Started  *time.Time  `json:"started"`
	Finished *time.Time  `json:"finished"`
	Error    string      `json:"error"`
	Attempts int         `json:"attempts"`
	Actor    string      `json:"actor"`
	Run      *DatasetRun `json:"run,omitempty"`

	NextAttempt *time.Time `json:"nextAttempt,omitempty"`
}

// JobList is jobs, newest first. Planned is on the first page only.
type JobList struct {
	Jobs    []Job        `json:"jobs"`
	Planned []PlannedJob `json:"planned,omitempty"`
	Next    string       `json:"next,omitempty"`
}

// JobFailure is one row on a job's dead-letter list. Item is the row's primary key as the database prints it; Reason never holds a value.
type JobFailure struct {
	Item   string    `json:"item"`
	Column string    `json:"column"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// JobFailureList is a page of a job's dead-letter list.
type JobFailureList struct {
	Failures []JobFailure `json:"failures"`
	Total    int64        `json:"total"`
}

// RemoveDatasetRequest says how a dataset is to be forgotten. Both are query parameters of the request.
type RemoveDatasetRequest struct {
	// Force forgets it although values are left in it, or nobody knows; it takes key.force-destroy on its keys, and a reason.
	Force  bool   `json:"force,omitempty"`
	Reason string `json:"reason,omitempty"`
}
