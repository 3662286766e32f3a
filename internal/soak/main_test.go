package soak

import (
	"testing"

	"github.com/keyturn/keyturn/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m, removePrograms) }
