package server

import "time"

// Config is keyturn.yaml. Each field's comment is its text in the reference page and in `keyturn serve --help`; its
// default and its rule are in the tags. An environment variable is named after the key: tls.certFile is
// KEYTURN_TLS__CERT_FILE. Durations are written "90s", "12h" or "30d", lists in the environment with commas.
type Config struct {
	// Where keys, the audit log and jobs are kept: "sqlite" for keyturn.db in the data directory, sqlite:///PATH for a file
	// elsewhere, or postgres://USER@HOST/DATABASE for a database that several nodes share. Better no password in it:
	// PGPASSFILE and PGPASSWORD are honoured.
	Store DSN `koanf:"store" default:"sqlite" validate:"store"`

	// The master keys, by URL. Any one of them opens the store; every key-encryption key is wrapped by all. env://NAME and
	// file:///PATH hold 32 bytes in base64; the file must be 0600. awskms:///ALIAS-OR-ARN and awssecretsmanager:///NAME are keys
	// in AWS, vaultkv:///MOUNT/PATH and vaulttransit:///MOUNT/KEY in Vault or OpenBao, pkcs11:token=LABEL;object=LABEL?module-path=/PATH
	// in an HSM, and escrow:// is one whose shares people keep. docs/providers has a page for each.
	MasterKeys []string `koanf:"masterKeys" default:"" validate:"min=1,dive,master"`

	// Where to listen: https://HOST:PORT, http://HOST:PORT on loopback addresses only, unix:///PATH. The socket keyturn.sock
	// in the data directory is always there beside these.
	Listen []string `koanf:"listen" default:"https://127.0.0.1:8420" validate:"dive,listen"`

	// The environment's name, written into every audit event.
	Environment string `koanf:"environment" default:"production" validate:"required,max=64,printascii"`

	// This node's name, in audit events and as the owner of jobs. Empty means the host's name.
	Node string `koanf:"node" default:"" validate:"max=64,omitempty,printascii"`

	// Rotation policies, by name: how the keys of a purpose, a name or an environment are turned over. The members are those
	// of keyturn policy set: key, purpose, environment, period, schedule, zone, grace, reencrypt, concurrency, batchSize,
	// attempts, warn. What keyturn policy set says wins over them, and they win over the shipped ones. In the environment the
	// whole mapping is written in YAML or JSON, such as {"clinic": {"purpose": "phi", "period": "30d"}}, and takes the place
	// of the one in the file.
	Policies Policies `koanf:"policies" default:""`

	Rotation RotationConfig `koanf:"rotation"`

	TLS   TLSConfig   `koanf:"tls"`
	Audit AuditConfig `koanf:"audit"`
	Keys  KeysConfig  `koanf:"keys"`
	Jobs  JobsConfig  `koanf:"jobs"`
	Log   LogConfig   `koanf:"log"`
	Debug DebugConfig `koanf:"debug"`
}

// TLSConfig is the certificate of the https listeners.
type TLSConfig struct {
	// The server's certificate chain in PEM. Empty: keyturn makes a private authority in the directory tls/, which the
	// command line trusts, and signs a certificate for the names in listen with it.
	CertFile string `koanf:"certFile" default:"" validate:"required_with=KeyFile,omitempty,abspath"`

	// The private key of certFile in PEM, 0600.
	KeyFile string `koanf:"keyFile" default:"" validate:"required_with=CertFile,omitempty,abspath"`

	// More host names and addresses for the certificate that keyturn makes: those under which clients reach the server when
	// they are not the ones in listen.
	Names []string `koanf:"names" default:"" validate:"dive,hostname_rfc1123|ip"`
}

// AuditConfig is about the audit log.
type AuditConfig struct {
	// The file outside the store to which every signed checkpoint is appended. Empty means checkpoints.log in the data
	// directory; a file on another machine's disk proves more.
	CheckpointFile string `koanf:"checkpointFile" default:"" validate:"omitempty,abspath"`

	// How often a checkpoint is signed while events come in. What a machine loses with its disk, and what somebody who can
	// change the store could cut off unnoticed, is at most the events since the last one.
	CheckpointEvery time.Duration `koanf:"checkpointEvery" default:"5s" validate:"min=1s"`
}

// KeysConfig is about the life of keys.
type KeysConfig struct {
	// A version that was opened within this time is in use, whatever a census says, and is not destroyed. 0 turns the rule
	// off.
	DestroyQuiet time.Duration `koanf:"destroyQuiet" default:"1h" validate:"min=0s"`

	// How long a server goes on serving while none of its master keys can be reached, with the keys that it has open. Then
	// it forgets them and refuses every use, until one can be reached again. Taking a master key away from a server stops it
	// after this time.
	MasterOutage time.Duration `koanf:"masterOutage" default:"4h" validate:"min=10s"`
}

// RotationConfig is about when a server looks after rotation by itself.
type RotationConfig struct {
	// When keys are looked at, as a cron expression: those that are due are rotated then, and of those that will be soon a
	// warning is recorded. A key that falls due earlier is rotated at its time.
	Check string `koanf:"check" default:"0 2 * * *" validate:"cron"`

	// When rotation itself is looked at: schedules, overdue keys, failed jobs, master keys.
	Health string `koanf:"health" default:"0 */4 * * *" validate:"cron"`

	// The time zone of both, such as Europe/Zurich.
	Zone string `koanf:"zone" default:"UTC" validate:"zone"`
}

// JobsConfig is about durable work.
type JobsConfig struct {
	// How many chunks of jobs run at once on this node.
	Concurrency int `koanf:"concurrency" default:"4" validate:"min=1,max=100"`

	// How long jobs that have ended are kept with what they could not do. Then they are forgotten, unless an open incident may
	// name them, or they are the last of a schedule or of a dataset. The audit log keeps what they did.
	Keep time.Duration `koanf:"keep" default:"90d" validate:"min=24h"`
}

// LogConfig is about what is written to standard error.
type LogConfig struct {
	// The least severe level that is written: debug, info, warn or error.
	Level string `koanf:"level" default:"info" validate:"oneof=debug info warn error"`

	// The form of the lines: text, or json for collectors.
	Format string `koanf:"format" default:"text" validate:"oneof=text json"`
}

// DebugConfig is about looking into a running process.
type DebugConfig struct {
	// A loopback address HOST:PORT for Go's profiles (net/http/pprof), without authentication. Empty: none. Profiles hold
	// the names of functions and the sizes of things, and no memory contents.
	Listen string `koanf:"listen" default:"" validate:"omitempty,loopback"`
}
