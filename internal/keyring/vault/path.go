package vault

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"

	ktapi "github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// maxPath is more than any sensible path takes, in bytes.
const maxPath = 512

// segment is what stands between two slashes of a path. Nothing in it needs escaping, none is "." or "..", so that a path
// means the same to us, to proxies and to Vault.
var segment = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@-]*$`)

// ValidPath says whether a path of at least two segments, as it stands in a URL ("/MOUNT/KEY"), can be asked for. It gives
// the path without its first slash.
func ValidPath(raw string) (string, bool) {
	path, ok := strings.CutPrefix(raw, "/")
	segments := strings.Split(path, "/")
	if !ok || len(path) > maxPath || len(segments) < 2 {
		return "", false
	}
	for _, s := range segments {
		if !segment.MatchString(s) {
			return "", false
		}
	}
	return path, true
}

// Mount is where a secrets engine is mounted.
type Mount struct {
	Path    string            `json:"path"` // "secret/"
	Type    string            `json:"type"` // "kv", "transit"
	UUID    string            `json:"uuid"` // stays when the engine is moved or the server's address changes
	Options map[string]string `json:"options"`
}

// MountOf finds the secrets engine that a path belongs to. Every token that may do anything in it may ask.
func (c *Client) MountOf(ctx context.Context, path string) (Mount, error) {
	answer, err := c.Read(ctx, "sys/internal/ui/mounts/"+path)
	if err != nil {
		return Mount{}, err
	}
	var a struct{ Data Mount }
	if json.Unmarshal(answer, &a) != nil || a.Data.UUID == "" || !strings.HasSuffix(a.Data.Path, "/") || !strings.HasPrefix(path+"/", a.Data.Path) {
		return Mount{}, fault.New(ktapi.CodeUnavailable, "asking Vault where a path belongs: it answered something else")
	}
	return a.Data, nil
}
