// Package httpapi turns bytes into calls of the services and their answers back into bytes. It is one route table
// ([Routes]), from which the router, the OpenAPI document, the metrics' labels and the matrix tests are all made, and one
// pipeline, through which every request goes in the same order:
//
//	limits -> public? -> authn -> path and route -> body read -> strict decoding -> service -> answer
//
// What that order buys: nobody who isn't signed in makes keyturn read or decode a byte of a body, or learns whether a
// path exists (the refusal is the same to the byte for every path). Whether the caller may do what he asks is decided by
// the service's doorway (package gate), which also writes the audit record; a row only names the action, for the
// document and for the test that compares the table with what the doorway really does.
//
// # Answers
//
// JSON on success, a problem document (RFC 9457) with a stable code on failure: [api.Problem]. It names the field that
// was wrong, never a value of the request. Every answer carries Cache-Control: no-store, and every answer to a caller who
// is known carries X-Request-Id, which the audit record carries too.
//
// # Two ways to read a body
//
// Every body goes through decodeStrict, which refuses whatever two parsers could read differently. The crypto routes
// try a hand-written reader of the usual shape first (hotparse.go): it accepts less and is several times cheaper, and
// FuzzHotAgainstStrict holds it to giving what the strict one gives.
package httpapi
