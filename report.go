package keyturn

import (
	"context"
	"net/url"
	"strconv"

	"github.com/keyturn/keyturn/api"
)

// Retirement is the signed and proven life of one version of a key. It counts every dataset of the key, so it isn't bounded
// by the client's timeout but by ctx. Needs key.report. Codes: not_found.
func (c *Client) Retirement(ctx context.Context, key string, version uint32) (api.RetirementDocument, error) {
	q := url.Values{}
	q.Set("version", strconv.FormatUint(uint64(version), 10))
	return read[api.RetirementDocument](ctx, c.patient(), route("keys", key, "retirement")+query(q))
}
