package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// row is one lesson.
type row struct {
	number int
	ids    []string // as published, e.g. CVE-2023-0620; the first one names the row
	class  string
	reason string   // why it doesn't apply yet; empty: it applies
	tests  []string // where it is tested: file: name
}

type status string

const (
	covered status = "covered"
	notYet  status = "not applicable yet"
	open    status = "open"
)

// status is covered if there is a test, whatever the reason says: a lesson may be tested before its feature comes.
func (r row) status() status {
	switch {
	case len(r.tests) > 0:
		return covered
	case r.reason != "":
		return notYet
	}
	return open
}

// readTable reads rows of number | ids | class | reason; lines that begin with # are comments.
func readTable(path string) ([]row, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the table: %w", err)
	}
	return parseTable(string(text))
}

func parseTable(text string) ([]row, error) {
	var rows []row
	taken := map[string]int{}
	for i, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		r, err := parseRow(line)
		if err != nil {
			return nil, fmt.Errorf("reading the table, line %d: %w", i+1, err)
		}
		if r.number != len(rows)+1 {
			return nil, fmt.Errorf("reading the table, line %d: row %d after row %d", i+1, r.number, len(rows))
		}
		for _, id := range r.ids {
			if taken[id] != 0 {
				return nil, fmt.Errorf("reading the table, line %d: %s stands in row %d too", i+1, id, taken[id])
			}
			taken[id] = r.number
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// idForm is that of a CVE or GHSA, or of a name that the table gave: upper case (GHSA parts are lower), digits, dashes.
var idForm = regexp.MustCompile(`^[A-Z]+(-[A-Za-z0-9]+)+$`)

func parseRow(line string) (row, error) {
	cells := strings.Split(line, "|")
	if len(cells) != 4 {
		return row{}, fmt.Errorf("%d cells instead of 4", len(cells))
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	n, err := strconv.Atoi(cells[0])
	if err != nil {
		return row{}, fmt.Errorf("%q is not a number", cells[0])
	}
	r := row{number: n, ids: strings.Split(cells[1], ", "), class: cells[2], reason: cells[3]}
	for _, id := range r.ids {
		if !idForm.MatchString(id) {
			return row{}, fmt.Errorf("%q is not an id", id)
		}
	}
	if r.class == "" {
		return row{}, fmt.Errorf("row %d has no class", n)
	}
	return r, nil
}

// advisoryTest finds the tests; its group is the id with underscores, and perhaps a suffix.
var advisoryTest = regexp.MustCompile(`(?m)^func TestAdvisory_([A-Za-z0-9_]+)\(`)

// foundTest is one test for an advisory.
type foundTest struct{ file, id string }

// findTests looks through every _test.go of the module, whatever its build tags.
func findTests(root string) ([]foundTest, error) {
	var found []foundTest
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		for _, m := range advisoryTest.FindAllSubmatch(text, -1) {
			found = append(found, foundTest{file: filepath.ToSlash(rel), id: string(m[1])})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for tests: %w", err)
	}
	return found, nil
}

// match notes each test at its row and answers the names that no row knows.
func match(rows []row, tests []foundTest) (unknown []string) {
	for _, t := range tests {
		i := slices.IndexFunc(rows, func(r row) bool { return slices.ContainsFunc(r.ids, func(id string) bool { return isFor(t.id, id) }) })
		if i < 0 {
			unknown = append(unknown, t.file+": TestAdvisory_"+t.id)
			continue
		}
		rows[i].tests = append(rows[i].tests, t.file+": TestAdvisory_"+t.id)
	}
	return unknown
}

// isFor reports whether a test's name is that of the id: dashes as underscores, then nothing, or an underscore and more.
// Case doesn't matter, so that GHSA ids may be written either way.
func isFor(name, id string) bool {
	name, id = strings.ToLower(name), strings.ToLower(strings.ReplaceAll(id, "-", "_"))
	rest, ok := strings.CutPrefix(name, id)
	return ok && (rest == "" || strings.HasPrefix(rest, "_"))
}
