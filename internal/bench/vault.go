package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/internal/vaulttest"
)

// vaultWork is one way of encrypting 64-byte plaintexts, as keyturn and as Vault's Transit are asked for it.
type vaultWork struct {
	what         string
	conns, items int
	path, body   string // keyturn's
	vault        string // Vault's body
}

func vaultWorks() []vaultWork {
	text := base64.StdEncoding.EncodeToString([]byte(plaintext64))
	item, own := `{"plaintext":"`+text+`"}`, string(encryptBody())
	hundred := func(s string) string { return strings.Repeat(s+",", 99) + s }
	return []vaultWork{
		{"encrypt calls/s, 64 connections", 64, 1, "/v1/keys/phi/encrypt", own, item},
		{"encrypt items/s in batches of 100, 16 connections", 16, 100, "/v1/keys/phi/encrypt/batch", `{"items":[` + hundred(own) + `]}`, `{"batch_input":[` + hundred(item) + `]}`},
	}
}

// benchVault times Vault's Transit in the same run: a real server with file storage, unsealed, one aes256-gcm96 key, plain loopback
// HTTP as keyturn's. Without an audit device it records nothing; its file device writes a line before each answer and never calls
// fsync, while keyturn's record is durable before each answer in every row. Rows are references: they have no target.
func benchVault(e *env) ([]row, error) {
	if _, err := vaulttest.Find(); err != nil {
		return nil, err
	}
	kt, token, err := e.serveKeyturn("http")
	if err != nil {
		return nil, err
	}
	defer kt.stop()
	ctx := context.Background()
	v, err := vaulttest.New(ctx, vaulttest.Options{})
	if err != nil {
		return nil, err
	}
	defer v.Close()
	found, err := os.FindProcess(v.PID())
	if err != nil {
		return nil, err
	}
	theirs := &process{cmd: &exec.Cmd{Process: found}, addr: v.Addr}
	for _, call := range [][2]string{{"sys/mounts/transit", `transit`}, {"transit/keys/phi", `aes256-gcm96`}} {
		if _, err := v.Call(ctx, http.MethodPost, call[0], map[string]string{"type": call[1]}); err != nil {
			return nil, err
		}
	}
	rows, err := e.besideVault(kt, theirs, token, v.RootToken, "Vault Transit, no audit")
	if err != nil {
		return rows, err
	}
	device := map[string]any{"type": "file", "options": map[string]string{"file_path": filepath.Join(v.Dir(), "audit.log")}}
	if _, err := v.Call(ctx, http.MethodPut, "sys/audit/file", device); err != nil {
		return rows, err
	}
	audited, err := e.besideVault(kt, theirs, token, v.RootToken, "Vault Transit, file audit, not fsynced")
	return append(rows, audited...), err
}

func (e *env) besideVault(kt, vault *process, token, root, name string) (rows []row, err error) {
	for _, w := range vaultWorks() {
		ours, theirs := post(w.path, token, []byte(w.body)), post("/v1/transit/encrypt/phi", root, []byte(w.vault))
		var a, b, ratios, aCPU, bCPU, cpus []float64
		for range e.pairs {
			x, err := drive(kt, kt.addr, ours, w.conns, e.span)
			if err != nil {
				return rows, err
			}
			y, err := drive(vault, vault.addr, theirs, w.conns, e.span)
			if err != nil {
				return rows, fmt.Errorf("asking Vault: %w", err)
			}
			n := float64(w.items)
			a, b, ratios = append(a, x.rate()*n), append(b, y.rate()*n), append(ratios, x.rate()/y.rate())
			aCPU, bCPU, cpus = append(aCPU, x.cpuPerCall()), append(bCPU, y.cpuPerCall()), append(cpus, x.cpuPerCall()/y.cpuPerCall())
		}
		per := "call"
		if w.items > 1 {
			per = fmt.Sprintf("call of %d", w.items)
		}
		rows = append(rows,
			row{"V", w.what, perSecond(a), perSecond(b) + " (" + name + ")", ratio(ratios), spread(ratios), "reference", ""},
			row{"V", "server CPU per " + per, us(aCPU), us(bCPU) + " (" + name + ")", ratio(cpus), spread(cpus), "reference", ""})
	}
	return rows, nil
}
