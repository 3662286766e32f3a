package server

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/store"
)

// checks are the doctor's checks of what only this room sees: the directory, the certificate, the place of the
// checkpoints.
func (s *Server) checks() []kms.Check {
	return []kms.Check{
		{Name: "rows", Severity: kms.SeverityError, Run: s.checkSums},
		{Name: "directory", Severity: kms.SeverityError, Run: s.checkModes},
		{Name: "checkpoints", Severity: kms.SeverityInfo, Run: s.checkCheckpoints},
		{Name: "certificate", Severity: kms.SeverityWarning, Run: s.checkCertificate},
		{Name: "master-key-place", Severity: kms.SeverityInfo, Run: s.checkMasterPlace},
	}
}

// checkSums looks for signed rows that were put back to their own past, taken away or added: each may be one of ours.
func (s *Server) checkSums(ctx context.Context) (ok bool, detail, fix string) {
	if err := s.checkRows(ctx); err != nil {
		return false, fault.MessageOf(err), fault.NextOf(err)
	}
	return true, "the signed rows add up to what was last written", ""
}

// checkModes looks for files that others can read. Open has closed them; somebody may have opened one since.
func (s *Server) checkModes(context.Context) (ok bool, detail, fix string) {
	var open []string
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Type() != fs.ModeSymlink && info.Mode().Perm()&0o077 != 0 {
			open = append(open, filepath.Base(path))
		}
		return nil
	})
	if err != nil {
		return false, "the data directory can't be read", "check its owner and its modes"
	}
	if len(open) > 0 {
		return false, fmt.Sprintf("%d files can be read by others, the first: %s", len(open), open[0]), "chmod -R go= " + s.dir
	}
	return true, "only this user can read the data directory", ""
}

// checkCheckpoints says whether signed checkpoints leave this disk: beside the store they go with it.
func (s *Server) checkCheckpoints(context.Context) (ok bool, detail, fix string) {
	file := s.cfg.Audit.CheckpointFile
	if file == "" || filepath.Dir(file) == s.dir {
		return false, "checkpoints lie in the data directory: whoever can replace it whole can cut the audit log unnoticed",
			"set audit.checkpointFile to another machine's disk, or keep the output of keyturn audit checkpoint elsewhere"
	}
	return true, "checkpoints are appended outside of the data directory", ""
}

// checkCertificate says when the https listeners' certificate ends.
func (s *Server) checkCertificate(context.Context) (ok bool, detail, fix string) {
	if s.tls == nil {
		return true, "no https listener runs in this process", ""
	}
	ends := s.tls.Certificates[0].Leaf.NotAfter
	left := ends.Sub(s.opts.Clock())
	if left < serverRenew/2 {
		return false, fmt.Sprintf("the certificate ends at %s", ends.UTC().Format(time.RFC3339)),
			"restart to have a new one made, or replace tls.certFile and restart"
	}
	return true, fmt.Sprintf("the certificate is good for %d days", int(left.Hours()/24)), ""
}

// checkMasterPlace warns of the one arrangement in which a stolen disk is a stolen store.
func (s *Server) checkMasterPlace(context.Context) (ok bool, detail, fix string) {
	const fixText = "add a master key that lies elsewhere and remove this one: keyturn master add, keyturn master remove"
	if s.store.Dialect() != store.SQLite {
		return true, "the store is not on this disk", ""
	}
	for _, m := range s.ring.Masters() {
		if m.Provider() != "file" || filepath.Dir(pathOf(m.URL())) != s.dir {
			continue
		}
		if _, err := os.Stat(pathOf(m.URL())); err == nil {
			return false, "a master key lies beside the store: a copy of the directory opens by itself", fixText
		}
	}
	return true, "no master key lies beside the store", ""
}

// pathOf is the path of a file:// URL.
func pathOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Path
}
