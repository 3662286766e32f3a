package main

import (
	"slices"
	"strings"
	"testing"
)

// Every test that says it guards against an advisory names one of the table, and the table is whole.
func TestEveryAdvisoryTestIsKnown(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	rows, err := readTable("advisories.txt")
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 101 {
		t.Errorf("the table has %d rows, want 101", len(rows))
	}
	tests, err := findTests(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(tests) == 0 {
		t.Fatal("found no test at all: is this the right folder?")
	}
	for _, name := range match(rows, tests) {
		t.Errorf("%s: no row of advisories.txt has this id", name)
	}
}

func TestReportCountsEveryRow(t *testing.T) {
	var short, long strings.Builder
	if err := report(&short, false); err != nil {
		t.Fatal(err)
	}
	if err := report(&long, true); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(short.String(), "advisories: 101 rows: ") || strings.Count(long.String(), "\n") != 102 {
		t.Errorf("short:\n%slong:\n%s", short.String(), long.String())
	}
}

func TestStatusOfARow(t *testing.T) {
	rows, err := parseTable("# comment\n1 | CVE-2020-1, CVE-2020-12 | A | \n2 | CVE-2020-2 | B | later\n3 | GHSA-aaaa-bbbb-cccc | C |\n4 | X-1 | D | later\n")
	if err != nil {
		t.Fatal(err)
	}
	unknown := match(rows, []foundTest{
		{"a_test.go", "CVE_2020_12"}, {"b_test.go", "ghsa_AAAA_bbbb_cccc_WithMore"}, {"c_test.go", "X_1"}, {"d_test.go", "CVE_2020_123"}, {"e_test.go", "CVE_2020_3"},
	})
	want := []status{covered, notYet, covered, covered}
	for i, r := range rows {
		if r.status() != want[i] {
			t.Errorf("row %d is %s, want %s", r.number, r.status(), want[i])
		}
	}
	if !slices.Equal(unknown, []string{"d_test.go: TestAdvisory_CVE_2020_123", "e_test.go: TestAdvisory_CVE_2020_3"}) {
		t.Errorf("unknown: %q", unknown)
	}
	rows[0].tests = nil
	if rows[0].status() != open {
		t.Errorf("a row without test and reason is %s", rows[0].status())
	}
}

func TestTableIsChecked(t *testing.T) {
	for _, bad := range []string{
		"1 | CVE-2020-1 | A", "x | CVE-2020-1 | A |", "2 | CVE-2020-1 | A |", "1 | cve 1 | A |", "1 |  | A |", "1 | CVE-2020-1 |  |",
		"1 | CVE-2020-1 | A |\n2 | CVE-2020-1 | A |", "1 | CVE-2020-1 | A | a | b",
	} {
		if rows, err := parseTable(bad); err == nil {
			t.Errorf("%q gave %v", bad, rows)
		}
	}
}
