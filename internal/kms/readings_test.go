package kms

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
)

// readings is the answer of every method that only reads, as JSON.
func readings(h *house) map[string]string {
	h.t.Helper()
	ctx, c := h.t.Context(), owner()
	out := map[string]string{}
	add := func(what string, answer any, err error) {
		h.t.Helper()
		h.must(err)
		text, err := json.Marshal(answer)
		h.must(err)
		out[what] = string(text)
	}
	list, err := h.svc.List(ctx, c, "", 0)
	add("list", list, err)
	for _, k := range list.Keys {
		shown, err := h.svc.Show(ctx, c, k.Name)
		add("show "+k.Name, shown, err)
	}
	masters, err := h.svc.Masters(ctx, c)
	add("masters", masters, err)
	verified, err := h.svc.VerifyMasters(ctx, c)
	add("verify", verified, err)
	status, err := h.svc.Status(ctx, c)
	add("status", status, err)
	doctor, err := h.svc.Doctor(ctx, c)
	add("doctor", doctor, err)
	principals, err := h.svc.Principals(ctx, c)
	add("principals", principals, err)
	roles, err := h.svc.Roles(ctx, c)
	add("roles", roles, err)
	who, err := h.svc.WhoAmI(ctx, c)
	add("whoami", who, err)
	for _, e := range h.events() {
		out["the log"] += e.raw
	}
	return out
}

// spellings are the forms in which bytes might be found in text, the alignments of base64 included.
func spellings(b []byte) []string {
	out := []string{string(b), hex.EncodeToString(b)}
	for shift := range 3 {
		padded := append(make([]byte, shift), b...)
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			text := enc.EncodeToString(padded)
			out = append(out, text[4:len(text)-4]) // the ends depend on the neighbours
		}
	}
	return out
}
