package httpapi

import (
	"context"
	"io"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/kms"
)

// Services is what the table's rows call. The interfaces say what a transport needs and no more; kms, reencrypt, gate
// and runner satisfy them. Each method decides and records through the doorway before it answers (promise P2), so a row
// is only a translation.
type Services struct {
	Keys       Keys
	Crypto     Crypto
	Masters    Masters
	Datasets   Datasets
	Jobs       Jobs
	Incidents  Incidents
	Audit      Audit
	Principals Principals
	System     System
	Rotation   Rotation
	Reports    Reports
}

// Reports is evidence.
type Reports interface {
	Retirement(ctx context.Context, c *access.Caller, key string, version uint32) (api.RetirementDocument, error)
}

// Keys is the life cycle of keys.
type Keys interface {
	Create(ctx context.Context, c *access.Caller, in api.CreateKeyRequest) (api.Key, error)
	List(ctx context.Context, c *access.Caller, after string, limit int) (api.KeyList, error)
	Show(ctx context.Context, c *access.Caller, key string) (api.Key, error)
	Rotate(ctx context.Context, c *access.Caller, key string, in api.RotateKeyRequest) (api.Key, error)
	Suspend(ctx context.Context, c *access.Caller, key string, in api.VersionStateRequest) (api.Key, error)
	Resume(ctx context.Context, c *access.Caller, key string, in api.VersionStateRequest) (api.Key, error)
	Disable(ctx context.Context, c *access.Caller, key string, in api.VersionStateRequest) (api.Key, error)
	Compromise(ctx context.Context, c *access.Caller, key string, in api.VersionStateRequest) (api.Key, error)
	Destroy(ctx context.Context, c *access.Caller, key string, in api.VersionStateRequest) (api.Key, error)
	DestroyDue(ctx context.Context, c *access.Caller, in api.DestroyDueRequest) (api.DestroyDue, error)
	Undestroy(ctx context.Context, c *access.Caller, key string, in api.VersionStateRequest) (api.Key, error)
	Import(ctx context.Context, c *access.Caller, key string, in api.ImportKeyRequest) (api.Key, error)
	Export(ctx context.Context, c *access.Caller, key string, in api.ExportKeyRequest) (api.ExportKeyResponse, error)
}

// Crypto is what is done with keys. Encrypt and Decrypt append to dst, which they return; contextText is the context as
// one flat JSON object, for the audit record.
type Crypto interface {
	Encrypt(ctx context.Context, c *access.Caller, key string, plaintext []byte, bound envelope.Context, contextText string, dst []byte) ([]byte, uint32, error)
	Decrypt(ctx context.Context, c *access.Caller, key string, ciphertext []byte, bound envelope.Context, contextText string, dst []byte) ([]byte, uint32, error)
	EncryptBatch(ctx context.Context, c *access.Caller, key string, in api.EncryptBatchRequest) (api.EncryptBatchResponse, error)
	DecryptBatch(ctx context.Context, c *access.Caller, key string, in api.DecryptBatchRequest) (api.DecryptBatchResponse, error)
	Rewrap(ctx context.Context, c *access.Caller, key string, in api.RewrapRequest) (api.RewrapResponse, error)
	RewrapBatch(ctx context.Context, c *access.Caller, key string, in api.RewrapBatchRequest) (api.RewrapBatchResponse, error)
	DataKey(ctx context.Context, c *access.Caller, key string, in api.DataKeyRequest) (api.DataKeyResponse, error)
	Derive(ctx context.Context, c *access.Caller, key string, in api.DeriveRequest) (api.DeriveResponse, error)
	Inspect(ctx context.Context, c *access.Caller, in api.InspectRequest) (api.Inspection, error)
}

// Masters is the master keys and the key-encryption keys below them.
type Masters interface {
	Masters(ctx context.Context, c *access.Caller) (api.MasterKeyList, error)
	VerifyMasters(ctx context.Context, c *access.Caller) (api.MasterKeyList, error)
	AddMaster(ctx context.Context, c *access.Caller, in api.MasterKeyRequest) (api.MasterRotation, error)
	RemoveMaster(ctx context.Context, c *access.Caller, in api.MasterKeyRequest) (api.MasterRotation, error)
	RotateMasters(ctx context.Context, c *access.Caller, in api.RotateMasterRequest) (api.MasterRotation, error)
	PrepareEscrow(ctx context.Context, c *access.Caller, in api.SplitEscrowRequest) (api.EscrowShares, error)
	CommitEscrow(ctx context.Context, c *access.Caller, in api.CommitEscrowRequest) (api.EscrowSplit, error)
	Escrow(ctx context.Context, c *access.Caller) (api.Escrow, error)
	EscrowVerified(ctx context.Context, c *access.Caller, in api.EscrowVerifiedRequest) (api.Escrow, error)
}

// Datasets is registered tables and the work on them.
type Datasets interface {
	Add(ctx context.Context, c *access.Caller, in api.AddDatasetRequest) (api.Dataset, error)
	List(ctx context.Context, c *access.Caller) (api.DatasetList, error)
	Show(ctx context.Context, c *access.Caller, dataset string) (api.Dataset, error)
	Remove(ctx context.Context, c *access.Caller, dataset string, in api.RemoveDatasetRequest) error
	Census(ctx context.Context, c *access.Caller, dataset string) (api.Census, error)
	Encrypt(ctx context.Context, c *access.Caller, dataset string, in api.DatasetRunRequest) (api.DatasetRun, error)
	Reencrypt(ctx context.Context, c *access.Caller, dataset string, in api.DatasetRunRequest) (api.DatasetRun, error)
	Verify(ctx context.Context, c *access.Caller, dataset string, in api.DatasetRunRequest) (api.DatasetRun, error)
	Decrypt(ctx context.Context, c *access.Caller, dataset string, in api.DatasetRunRequest) (api.DatasetRun, error)
}

// Jobs is durable work.
type Jobs interface {
	List(ctx context.Context, c *access.Caller, state, after string, limit int) (api.JobList, error)
	Show(ctx context.Context, c *access.Caller, id string) (api.Job, error)
	Failures(ctx context.Context, c *access.Caller, id string, offset, limit int) (api.JobFailureList, error)
	Pause(ctx context.Context, c *access.Caller, id string) (api.Job, error)
	Resume(ctx context.Context, c *access.Caller, id string) (api.Job, error)
	Cancel(ctx context.Context, c *access.Caller, id string) (api.Job, error)
	Retry(ctx context.Context, c *access.Caller, id string) (api.Job, error)
	// Watch calls each with the job now and whenever it changed, until it is final or ctx ends.
	Watch(ctx context.Context, c *access.Caller, id string, each func(api.Job) error) error
}

// Incidents is recorded compromises and what is done about them.
type Incidents interface {
	Open(ctx context.Context, c *access.Caller, in api.OpenIncidentRequest) (api.Incident, error)
	Emergency(ctx context.Context, c *access.Caller, in api.EmergencyRequest) (api.Emergency, error)
	PlanEmergency(ctx context.Context, c *access.Caller, in api.EmergencyRequest) (api.EmergencyPlan, error)
	List(ctx context.Context, c *access.Caller, state, after string, limit int) (api.IncidentList, error)
	Show(ctx context.Context, c *access.Caller, id string) (api.IncidentDetail, error)
	Note(ctx context.Context, c *access.Caller, id string, in api.IncidentNoteRequest) (api.Incident, error)
	Close(ctx context.Context, c *access.Caller, id string, in api.CloseIncidentRequest) (api.Incident, error)
	Report(ctx context.Context, c *access.Caller, id string) (api.IncidentReport, error)
}

// Audit is the log of what was done.
type Audit interface {
	// Query writes the events that f selects, one export line each.
	Query(ctx context.Context, c *access.Caller, f gate.Filter, w io.Writer) error
	// Export writes the whole log so that the file verifies.
	Export(ctx context.Context, c *access.Caller, w io.Writer) error
	// Tail writes the newest events that f selects, oldest of them first, and with follow every new one until ctx ends.
	// It calls flush when what it wrote should leave.
	Tail(ctx context.Context, c *access.Caller, f gate.Filter, follow bool, w io.Writer, flush func() error) error
	Verify(ctx context.Context, c *access.Caller) (api.AuditVerification, error)
	Checkpoint(ctx context.Context, c *access.Caller) (api.AuditCheckpoint, error)
}

// Principals is who may ask.
type Principals interface {
	CreatePrincipal(ctx context.Context, c *access.Caller, in api.CreatePrincipalRequest) (api.Principal, error)
	Principals(ctx context.Context, c *access.Caller) (api.PrincipalList, error)
	Principal(ctx context.Context, c *access.Caller, name string) (api.Principal, error)
	DisablePrincipal(ctx context.Context, c *access.Caller, name string) (api.Principal, error)
	NewToken(ctx context.Context, c *access.Caller, name string) (api.Principal, error)
	Roles(ctx context.Context, c *access.Caller) (api.RoleList, error)
	Role(ctx context.Context, c *access.Caller, name string) (api.Role, error)
	WhoAmI(ctx context.Context, c *access.Caller) (api.WhoAmI, error)
}

// System is the store's own health.
type System interface {
	Status(ctx context.Context, c *access.Caller) (api.Status, error)
	Doctor(ctx context.Context, c *access.Caller) (api.Doctor, error)
	// Compliance is for GET /health, which is public: it holds counts and no names.
	Compliance(ctx context.Context) (kms.Compliance, error)
}

// Rotation is policies, what is due by them, and what was rotated.
type Rotation interface {
	Policies(ctx context.Context, c *access.Caller) (api.PolicyList, error)
	Effective(ctx context.Context, c *access.Caller, key string) (api.EffectivePolicy, error)
	SetPolicy(ctx context.Context, c *access.Caller, name string, in api.SetPolicyRequest) (api.Policy, error)
	RemovePolicy(ctx context.Context, c *access.Caller, name string) error
	Status(ctx context.Context, c *access.Caller) (api.RotationStatus, error)
	Run(ctx context.Context, c *access.Caller, in api.RotationRunRequest) (api.RotationRun, error)
	History(ctx context.Context, c *access.Caller, key, after string, limit int) (api.RotationHistory, error)
}
