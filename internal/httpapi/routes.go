package httpapi

import (
	"reflect"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
)

// Query parameters that several rows take.
var (
	pageParams = []Param{
		{"after", "string", "the Next of the page before"},
		{"limit", "integer", "items a page: 1 to 1000, default 100"},
	}
	auditParams = []Param{
		{"since", "date-time", "events from this time on"},
		{"until", "date-time", "events before this time"},
		{"type", "string", "an event type, e.g. key_use"},
		{"resource", "string", "a resource, e.g. key/phi"},
		{"user", "string", "a principal's name"},
		{"failed", "boolean", "only events without success"},
		{"after", "string", "events after this one, as SHARD.INDEX"},
		{"limit", "integer", "at most so many events; 0 = no limit"},
	}
)

// table is the route table: the only place where a path, an action and a service's method meet.
func (a *API) table() []*Route {
	var rows []*Route
	for _, part := range [][]Route{a.keyRoutes(), a.cryptoRoutes(), a.masterRoutes(), a.rotationRoutes(), a.datasetRoutes(), a.jobRoutes(), a.incidentRoutes(),
		a.auditRoutes(), a.principalRoutes(), a.systemRoutes(), a.publicRoutes()} {
		for _, r := range part {
			rows = append(rows, &r)
		}
	}
	return rows
}

const (
	keyPath      = "/v1/keys/{key}"
	datasetPath  = "/v1/datasets/{dataset}"
	jobPath      = "/v1/jobs/{job}"
	incidentPath = "/v1/incidents/{incident}"
	mastersPath  = "/v1/master-keys"
	verifyPath   = mastersPath + "/verify"
)

func (a *API) keyRoutes() []Route {
	s := a.services.Keys
	row := func(verb, summary string, action access.Action, h handler) Route {
		return Route{Method: "POST", Pattern: keyPath + "/" + verb, Summary: summary, Action: action, Kind: access.KindKey, handler: h}
	}
	return []Route{
		{Method: "POST", Pattern: "/v1/keys", Summary: "Make a key with its first version", Action: access.KeyCreate, Kind: access.KindKey, handler: post(a.createKey)},
		{Method: "GET", Pattern: "/v1/keys", Summary: "List keys", Action: access.KeyRead, Kind: access.KindKey, Query: pageParams, handler: get(a.listKeys)},
		{Method: "GET", Pattern: keyPath, Summary: "Show a key and its versions", Action: access.KeyRead, Kind: access.KindKey, handler: get(named(s.Show))},
		row("rotate", "Make a new active version", access.KeyRotate, post(namedIn(s.Rotate))),
		row("suspend", "Suspend a version", access.KeyState, post(namedIn(s.Suspend))),
		row("resume", "Resume a suspended version", access.KeyState, post(namedIn(s.Resume))),
		row("disable", "Deactivate a version: it only opens from now on", access.KeyState, post(namedIn(s.Disable))),
		row("compromise", "Mark a version compromised", access.KeyCompromise, post(namedIn(s.Compromise))),
		row("destroy", "Schedule a version's destruction", access.KeyDestroy, post(namedIn(s.Destroy))),
		{Method: "POST", Pattern: "/v1/destructions/run", Summary: "Execute the scheduled destructions that are due", Action: access.KeyDestroy, Kind: access.KindKey, handler: post(plainIn(s.DestroyDue))},
		row("undestroy", "Take a scheduled destruction back", access.KeyDestroy, post(namedIn(s.Undestroy))),
		row("import", "Bring material from elsewhere as the next version", access.KeyImport, post(namedIn(s.Import))),
		row("export", "Take a version's material out in clear", access.KeyExport, post(namedIn(s.Export))),
	}
}

func (a *API) cryptoRoutes() []Route {
	s := a.services.Crypto
	row := func(verb, summary string, action access.Action, h handler) Route {
		return Route{Method: "POST", Pattern: keyPath + "/" + verb, Summary: summary, Action: action, Kind: access.KindKey, handler: h}
	}
	return []Route{
		row("encrypt", "Seal a plaintext under the active version", access.KeyEncrypt, a.hotEncrypt()),
		row("decrypt", "Open a ciphertext", access.KeyDecrypt, a.hotDecrypt()),
		row("encrypt/batch", "Seal up to 1000 plaintexts", access.KeyEncrypt, a.hotEncryptBatch()),
		row("decrypt/batch", "Open up to 1000 ciphertexts", access.KeyDecrypt, a.hotDecryptBatch()),
		row("rewrap", "Move a ciphertext to the active version", access.KeyRewrap, post(namedIn(s.Rewrap))),
		row("rewrap/batch", "Move up to 1000 ciphertexts to the active version", access.KeyRewrap, batch(namedIn(s.RewrapBatch))),
		row("datakey", "Make a random data key, in clear and sealed", access.KeyDataKey, post(namedIn(s.DataKey))),
		row("derive", "Derive a key from a version", access.KeyDerive, post(namedIn(s.Derive))),
		{Method: "POST", Pattern: "/v1/inspect", Summary: "Say what a ciphertext is, without opening it", Action: access.KeyRead, Kind: access.KindKey, handler: post(plainIn(s.Inspect))},
	}
}

func (a *API) masterRoutes() []Route {
	s := a.services.Masters
	row := func(method, path, summary string, action access.Action, h handler) Route {
		return Route{Method: method, Pattern: mastersPath + path, Summary: summary, Action: action, Kind: access.KindMaster, handler: h}
	}
	return []Route{
		row("GET", "", "List the configured master keys", access.MasterRead, get(plain(s.Masters))),
		row("POST", "", "Wrap every KEK under one more master key", access.MasterChange, post(plainIn(s.AddMaster))),
		row("POST", "/remove", "Take a master key's wrappings away", access.MasterChange, post(plainIn(s.RemoveMaster))),
		row("POST", "/rotate", "Wrap the KEKs anew, or make a new generation of them", access.MasterChange, post(plainIn(s.RotateMasters))),
		row("POST", "/verify", "Open every KEK under every master key", access.MasterRead, get(plain(s.VerifyMasters))),
		row("GET", "/escrow", "Show the set of escrow shares", access.MasterRead, get(plain(s.Escrow))),
		row("POST", "/escrow/prepare", "Make a new set of escrow shares, shown this once, that counts when it is committed", access.MasterEscrow, post(plainIn(s.PrepareEscrow))),
		row("POST", "/escrow/commit", "Make a prepared set of escrow shares, which are written, the one that counts", access.MasterEscrow, post(plainIn(s.CommitEscrow))),
		row("POST", "/escrow/verified", "Record that enough shares of the set were seen to open the store", access.MasterChange, post(plainIn(s.EscrowVerified))),
	}
}

func (a *API) rotationRoutes() []Route {
	s := a.services.Rotation
	const policyPath = "/v1/policies/{policy}"
	return []Route{
		{Method: "GET", Pattern: "/v1/policies", Summary: "List the rotation policies", Action: access.PolicyRead, Kind: access.KindPolicy, handler: get(plain(s.Policies))},
		{Method: "POST", Pattern: policyPath, Summary: "Set a rotation policy, or change members of it", Action: access.PolicyWrite, Kind: access.KindPolicy, handler: post(namedIn(s.SetPolicy))},
		{Method: "DELETE", Pattern: policyPath, Summary: "Take away a rotation policy that was set", Action: access.PolicyWrite, Kind: access.KindPolicy, handler: act(a.removePolicy)},
		{Method: "GET", Pattern: keyPath + "/policy", Summary: "Show what the policies say for a key", Action: access.KeyRead, Kind: access.KindKey, handler: get(named(s.Effective))},
		{Method: "GET", Pattern: keyPath + "/retirement", Summary: "The signed and proven life of one version", Action: access.KeyReport, Kind: access.KindKey,
			Query: []Param{{"version", "integer", "the version"}}, Needs: "version", handler: get(a.retirement)},
		{Method: "GET", Pattern: keyPath + "/rotations", Summary: "List a key's rotations, newest first", Action: access.KeyRead, Kind: access.KindKey, Query: pageParams, handler: get(a.rotationHistory)},
		{Method: "GET", Pattern: "/v1/rotation", Summary: "Say which keys are overdue and which come next", Action: access.KeyRead, Kind: access.KindKey, handler: get(plain(s.Status))},
		{Method: "POST", Pattern: "/v1/rotation/run", Summary: "Have rotated what is due now", Action: access.KeyRotate, Kind: access.KindKey, handler: post(plainIn(s.Run))},
		{Method: "GET", Pattern: "/v1/rotation/history", Summary: "List rotations, newest first", Action: access.KeyRead, Kind: access.KindKey, Query: pageParams, handler: get(a.rotationHistory)},
	}
}

func (a *API) datasetRoutes() []Route {
	s := a.services.Datasets
	row := func(method, path, summary string, action access.Action, h handler) Route {
		return Route{Method: method, Pattern: datasetPath + path, Summary: summary, Action: action, Kind: access.KindDataset, handler: h}
	}
	return []Route{
		{Method: "GET", Pattern: "/v1/datasets", Summary: "List datasets", Action: access.DatasetRead, Kind: access.KindDataset, handler: get(plain(s.List))},
		{Method: "POST", Pattern: "/v1/datasets", Summary: "Register a table as a dataset", Action: access.DatasetWrite, Kind: access.KindDataset, handler: post(plainIn(s.Add))},
		row("GET", "", "Show a dataset", access.DatasetRead, get(named(s.Show))),
		{Method: "DELETE", Pattern: datasetPath, Summary: "Forget a dataset; its table is not touched", Action: access.DatasetWrite, Kind: access.KindDataset,
			Query: []Param{{"force", "boolean", "although values are left in it"}, {"reason", "string", "why, with force"}}, handler: act(a.removeDataset)},
		row("GET", "/census", "Count what the values stand under", access.DatasetRead, get(named(s.Census))),
		row("POST", "/encrypt", "Encrypt the plaintext values", access.DatasetRun, post(namedIn(s.Encrypt))),
		row("POST", "/reencrypt", "Move every value to the active version", access.DatasetRun, post(namedIn(s.Reencrypt))),
		row("POST", "/verify", "Open the values to prove that they open", access.DatasetRun, post(namedIn(s.Verify))),
		row("POST", "/decrypt", "Turn the values back into plaintext", access.DatasetDecrypt, post(namedIn(s.Decrypt))),
	}
}

func (a *API) jobRoutes() []Route {
	s := a.services.Jobs
	row := func(method, path, summary string, action access.Action, h handler) Route {
		return Route{Method: method, Pattern: jobPath + path, Summary: summary, Action: action, Kind: access.KindJob, handler: h}
	}
	failures := row("GET", "/failures", "List what a job could not do", access.JobRead, get(a.jobFailures))
	failures.Query = []Param{{"offset", "integer", "skip so many"}, {"limit", "integer", "items a page: 1 to 1000, default 100"}}
	return []Route{
		{Method: "GET", Pattern: "/v1/jobs", Summary: "List jobs, newest first", Action: access.JobRead, Kind: access.KindJob,
			Query: append([]Param{{"state", "string", "only jobs in this state"}}, pageParams...), handler: get(a.listJobs)},
		row("GET", "", "Show a job", access.JobRead, get(named(s.Show))),
		failures,
		row("GET", "/watch", "Follow a job until it ends", access.JobRead, lines[api.Job](a.watchJob)),
		row("POST", "/pause", "Pause a job after its current chunk", access.JobControl, get(named(s.Pause))),
		row("POST", "/resume", "Resume a paused job; have one that waits for its next attempt try now", access.JobControl, get(named(s.Resume))),
		row("POST", "/cancel", "Cancel a job after its current chunk", access.JobControl, get(named(s.Cancel))),
		row("POST", "/retry", "Take up a failed job, or a job's failures, again; have one that waits try now", access.JobControl, get(named(s.Retry))),
	}
}

func (a *API) incidentRoutes() []Route {
	s := a.services.Incidents
	row := func(method, path, summary string, action access.Action, h handler) Route {
		return Route{Method: method, Pattern: path, Summary: summary, Action: action, Kind: access.KindIncident, handler: h}
	}
	list := row("GET", "/v1/incidents", "List incidents, newest first", access.IncidentRead, get(a.listIncidents))
	list.Query = append([]Param{{"state", "string", "only open or closed incidents"}}, pageParams...)
	return []Route{
		list,
		row("POST", "/v1/incidents", "Open an incident that changes no key", access.IncidentWrite, post(plainIn(s.Open))),
		row("POST", "/v1/emergency", "Open an incident and rotate keys in it; needs key.rotate and key.compromise on each of them too",
			access.IncidentWrite, post(plainIn(s.Emergency))),
		row("POST", "/v1/emergency/plan", "Find out what an emergency would do, and change nothing; needs the same rights",
			access.IncidentWrite, post(plainIn(s.PlanEmergency))),
		row("GET", incidentPath, "Show an incident, and count what is left", access.IncidentRead, get(named(s.Show))),
		row("POST", incidentPath+"/notes", "Add a note to an incident", access.IncidentWrite, post(namedIn(s.Note))),
		row("POST", incidentPath+"/close", "Close an incident of which nothing is left", access.IncidentWrite, post(namedIn(s.Close))),
		row("GET", incidentPath+"/report", "The evidence of an incident", access.IncidentRead, get(named(s.Report))),
	}
}

func (a *API) auditRoutes() []Route {
	s := a.services.Audit
	row := func(method, path, summary string, action access.Action, query []Param, h handler) Route {
		return Route{Method: method, Pattern: "/v1/audit/" + path, Summary: summary, Action: action, Kind: access.KindAudit, Query: query, handler: h}
	}
	follow := append([]Param{{"follow", "boolean", "stay and send every new event"}}, auditParams...)
	return []Route{
		row("GET", "events", "Query the audit log, oldest first", access.AuditRead, auditParams, lines[AuditLine](a.queryAudit)),
		row("GET", "export", "Export the audit log so that it verifies offline", access.AuditRead, auditParams, lines[AuditLine](a.exportAudit)),
		row("GET", "tail", "The newest events, and new ones as they come", access.AuditRead, follow, lines[AuditLine](a.tailAudit)),
		row("GET", "verify", "Verify the audit log against its checkpoint", access.AuditRead, nil, get(plain(s.Verify))),
		row("POST", "checkpoint", "Sign a checkpoint now", access.AuditCheckpoint, nil, get(plain(s.Checkpoint))),
	}
}

func (a *API) principalRoutes() []Route {
	s := a.services.Principals
	row := func(method, path, summary string, action access.Action, h handler) Route {
		return Route{Method: method, Pattern: "/v1/principals" + path, Summary: summary, Action: action, Kind: access.KindPrincipal, handler: h}
	}
	return []Route{
		row("GET", "", "List principals", access.PrincipalRead, get(plain(s.Principals))),
		row("POST", "", "Make a principal and its first token", access.PrincipalWrite, post(plainIn(s.CreatePrincipal))),
		row("GET", "/{principal}", "Show a principal", access.PrincipalRead, get(named(s.Principal))),
		row("POST", "/{principal}/disable", "Disable a principal and revoke its tokens", access.PrincipalWrite, get(named(s.DisablePrincipal))),
		row("POST", "/{principal}/token", "Give a principal a new token and revoke the old ones", access.PrincipalWrite, get(named(s.NewToken))),
		{Method: "GET", Pattern: "/v1/roles", Summary: "List roles", handler: get(plain(s.Roles))},
		{Method: "GET", Pattern: "/v1/roles/{role}", Summary: "Show a role", handler: get(named(s.Role))},
		{Method: "GET", Pattern: "/v1/whoami", Summary: "Who the server takes the caller for", handler: get(plain(s.WhoAmI))},
	}
}

func (a *API) systemRoutes() []Route {
	s := a.services.System
	return []Route{
		{Method: "GET", Pattern: "/v1/status", Summary: "The whole store on one screen", Action: access.SystemRead, Kind: access.KindSystem, handler: get(plain(s.Status))},
		{Method: "GET", Pattern: "/v1/doctor", Summary: "Check the store's health", Action: access.SystemRead, Kind: access.KindSystem, handler: get(plain(s.Doctor))},
	}
}

// publicRoutes is the closed list of what anyone may ask. TestAdvisory_CVE_2022_36129 holds every other row to 401.
func (a *API) publicRoutes() []Route {
	return []Route{
		{Method: "GET", Pattern: "/healthz", Summary: "The process runs", Public: true, handler: get(a.healthz)},
		{Method: "GET", Pattern: "/readyz", Summary: "Requests can be served", Public: true, handler: get(a.readyz)},
		{Method: "GET", Pattern: "/health", Summary: "Key rotation and FIPS at a glance", Public: true, handler: get(a.health)},
		{Method: "GET", Pattern: "/metrics", Summary: "Figures for Prometheus", Public: true, handler: handler{serve: a.metrics.serve()}},
		{Method: "GET", Pattern: "/openapi.json", Summary: "This document", Public: true, handler: handler{out: reflect.TypeFor[map[string]any](), serve: a.openAPI}},
	}
}
