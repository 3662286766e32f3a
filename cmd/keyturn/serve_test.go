package main

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/server"
)

// TestServeToldToStopAmidItsStart: that is an orderly end, also when it comes before anything was opened.
func TestServeToldToStopAmidItsStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kt")
	if status := newApp(nil, new(bytes.Buffer), new(bytes.Buffer)).run(t.Context(), []string{"init", "--dir", dir}); status != 0 {
		t.Fatal("init:", status)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	a := newApp(nil, &out, &errs)
	if err := serve(ctx, dir, server.Options{LogTo: &errs, Embedded: true}); err == nil {
		t.Fatal("it started under a context that had ended: the test says nothing")
	}
	if err := a.serve(ctx, dir, server.Options{Embedded: true}); err != nil {
		t.Error(err)
	}
	if err := a.serve(ctx, filepath.Join(dir, "none"), server.Options{Embedded: true}); err == nil {
		t.Error("a directory without a store is no failure")
	}
}
