package postgres_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

func TestTorture(t *testing.T) { connectortest.Torture(t, harness(), 5000) }
