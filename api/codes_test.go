package api

import "testing"

func TestExitStatus(t *testing.T) {
	want := map[Code]int{
		"": 0, CodeInternal: 1, CodeUnavailable: 1, CodeCancelled: 1, CodeInvalid: 2, CodeTooLarge: 2, CodeNotFound: 3,
		CodeDenied: 4, CodeUnauthenticated: 4, CodeConflict: 5, CodeWrongState: 5, CodeInUse: 5, CodeLimit: 5, CodeBusy: 5,
		CodeIntegrity: 6, "a_code_of_a_newer_server": 1,
	}
	for code, status := range want {
		if got := code.ExitStatus(); got != status {
			t.Errorf("%q exits with %d, want %d", code, got, status)
		}
	}
	for _, code := range Codes() {
		if _, ok := want[code]; !ok {
			t.Errorf("%q has no row in this table", code)
		}
		if code.ExitStatus() == 0 {
			t.Errorf("%q ends as if nothing had failed", code)
		}
	}
	if len(want) != len(Codes())+2 {
		t.Errorf("this table has %d codes, Codes lists %d", len(want)-2, len(Codes()))
	}
}
