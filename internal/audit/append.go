package audit

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the event as one line of JSON without a newline, without its place in the log. Strings are escaped
// as encoding/json does with SetEscapeHTML(false): invalid UTF-8 becomes \ufffd, U+2028 and U+2029 are escaped, < > &
// stand as they are. The order of the fields is fixed; it is part of the format.
func AppendJSON(dst []byte, e *Event) []byte {
	dst = append(dst, `{"timestamp":"`...)
	dst = AppendTime(dst, e.Time)
	dst = append(dst, `","event_type":`...)
	dst = appendString(dst, string(e.Type))
	dst = append(dst, `,"action":`...)
	dst = appendString(dst, e.Action)
	dst = append(dst, `,"success":`...)
	dst = strconv.AppendBool(dst, e.Success)
	dst = append(dst, `,"user_id":`...)
	dst = appendString(dst, e.UserID)
	dst = append(dst, ',')
	dst = textField(dst, `"role":`, e.Role)
	dst = append(dst, `"resource":`...)
	dst = appendString(dst, e.Resource)
	dst = append(dst, ',')
	dst = numberField(dst, `"key_version":`, uint64(e.KeyVersion))
	dst = textField(dst, `"reason":`, e.Reason)
	dst = textField(dst, `"request_id":`, e.RequestID)
	dst = textField(dst, `"source_ip":`, e.SourceIP)
	dst = appendDetails(dst, &e.Details)
	dst = append(dst, `"process_id":`...)
	dst = strconv.AppendInt(dst, int64(e.ProcessID), 10)
	dst = append(dst, `,"environment":`...)
	dst = appendString(dst, e.Environment)
	return append(dst, '}')
}

// AppendExport appends a stored line in the form of an export: with its place in the log as the last two fields.
func AppendExport(dst, line []byte, shard int, index uint64) []byte {
	dst = append(dst, line[:len(line)-1]...)
	dst = append(dst, shardMark...)
	dst = strconv.AppendInt(dst, int64(shard), 10)
	dst = append(dst, indexMark...)
	dst = strconv.AppendUint(dst, index, 10)
	return append(dst, '}')
}

const (
	shardMark = `,"shard":`
	indexMark = `,"index":`
)

// appendDetails writes the details member with a comma behind it, or nothing when no detail is set.
func appendDetails(dst []byte, d *Details) []byte {
	const open = `"details":{`
	dst = append(dst, open...)
	start := len(dst)
	dst = appendWho(dst, d)
	dst = appendKeyFacts(dst, d)
	dst = appendBulk(dst, d)
	dst = appendRest(dst, d)
	if len(dst) == start {
		return dst[:start-len(open)]
	}
	dst[len(dst)-1] = '}' // over the last field's comma
	return append(dst, ',')
}

func appendWho(dst []byte, d *Details) []byte {
	dst = textField(dst, `"source":`, d.Source)
	dst = textField(dst, `"method":`, d.Method)
	dst = textField(dst, `"principal":`, d.Principal)
	dst = textField(dst, `"ordered_by":`, d.OrderedBy)
	dst = textField(dst, `"role":`, d.Role)
	dst = textField(dst, `"token":`, d.Token)
	dst = textField(dst, `"node":`, d.Node)
	dst = textField(dst, `"code":`, d.Code)
	dst = textField(dst, `"field":`, d.Field)
	dst = textField(dst, `"state":`, d.State)
	return textField(dst, `"from_state":`, d.FromState)
}

func appendKeyFacts(dst []byte, d *Details) []byte {
	dst = textField(dst, `"key":`, d.Key)
	dst = textField(dst, `"purpose":`, d.Purpose)
	dst = textField(dst, `"algorithm":`, d.Algorithm)
	dst = numberField(dst, `"old_version":`, uint64(d.OldVersion))
	dst = numberField(dst, `"new_version":`, uint64(d.NewVersion))
	dst = timeField(dst, `"next_rotation_due":`, d.NextRotationDue)
	dst = timeField(dst, `"destroy_at":`, d.DestroyAt)
	dst = textField(dst, `"compliance_status":`, d.ComplianceStatus)
	dst = textField(dst, `"kek":`, d.KEK)
	dst = textField(dst, `"master_key":`, d.MasterKey)
	dst = textField(dst, `"label":`, d.Label)
	dst = numberField(dst, `"length":`, d.Length)
	dst = contextField(dst, d.Context)
	dst = flagField(dst, `"emergency":`, d.Emergency)
	dst = textField(dst, `"escrow":`, d.Escrow)
	dst = numberField(dst, `"threshold":`, d.Threshold)
	return numberField(dst, `"shares":`, d.Shares)
}

func appendBulk(dst []byte, d *Details) []byte {
	dst = numberField(dst, `"items":`, d.Items)
	dst = numberField(dst, `"failed":`, d.Failed)
	dst = numberField(dst, `"rows":`, d.Rows)
	dst = numberField(dst, `"changed":`, d.Changed)
	dst = numberField(dst, `"skipped":`, d.Skipped)
	dst = numberField(dst, `"conflicts":`, d.Conflicts)
	dst = numberField(dst, `"opened":`, d.Opened)
	dst = numberField(dst, `"plaintext":`, d.Plaintext)
	dst = numberField(dst, `"unreadable":`, d.Unreadable)
	dst = textField(dst, `"dataset":`, d.Dataset)
	dst = textField(dst, `"table":`, d.Table)
	dst = textField(dst, `"column":`, d.Column)
	dst = textField(dst, `"job":`, d.Job)
	dst = textField(dst, `"kind":`, d.Kind)
	dst = textField(dst, `"from":`, d.From)
	dst = textField(dst, `"candidates":`, d.Candidates)
	return textField(dst, `"moved":`, d.Moved)
}

func appendRest(dst []byte, d *Details) []byte {
	dst = numberField(dst, `"events":`, d.Events)
	dst = textField(dst, `"version":`, d.Version)
	dst = numberField(dst, `"count":`, d.Count)
	dst = numberField(dst, `"duration_ms":`, d.Duration)
	dst = textField(dst, `"value_masked":`, d.ValueMasked)
	dst = textField(dst, `"value_hash":`, d.ValueHash)
	dst = textField(dst, `"incident":`, d.Incident)
	dst = textField(dst, `"scope":`, d.Scope)
	return textField(dst, `"severity":`, d.Severity)
}

// The field helpers write `"name":value,` or, for a zero value, nothing. name comes with quotes and colon.

func textField(dst []byte, name, v string) []byte {
	if v == "" {
		return dst
	}
	return append(appendString(append(dst, name...), v), ',')
}

func numberField(dst []byte, name string, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return append(strconv.AppendUint(append(dst, name...), v, 10), ',')
}

func flagField(dst []byte, name string, v bool) []byte {
	if !v {
		return dst
	}
	return append(append(dst, name...), `true,`...)
}

func timeField(dst []byte, name string, v time.Time) []byte {
	if v.IsZero() {
		return dst
	}
	dst = append(append(dst, name...), '"')
	return append(v.UTC().AppendFormat(dst, time.RFC3339), '"', ',')
}

// contextField writes the encryption context as the JSON object that it is the text of. A text that is not one flat
// object of strings, which the callers never pass, is written as a string: nothing that came from outside can add
// structure to the line.
func contextField(dst []byte, text string) []byte {
	if text == "" {
		return dst
	}
	dst = append(dst, `"context":`...)
	if isFlatObject(text) {
		dst = append(dst, text...)
	} else {
		dst = appendString(dst, text)
	}
	return append(dst, ',')
}

// TimeLen is the length of what AppendTime writes for years 0 to 9999.
const TimeLen = len("2006-01-02T15:04:05.000000Z")

// AppendTime appends the log's form of a time: UTC, six digits of a second. Two such texts compare like their times.
func AppendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
	}
	hour, minute, sec := t.Clock()
	dst = appendDigits(dst, year, 4)
	dst = appendDigits(append(dst, '-'), int(month), 2)
	dst = appendDigits(append(dst, '-'), day, 2)
	dst = appendDigits(append(dst, 'T'), hour, 2)
	dst = appendDigits(append(dst, ':'), minute, 2)
	dst = appendDigits(append(dst, ':'), sec, 2)
	dst = appendDigits(append(dst, '.'), t.Nanosecond()/1000, 6)
	return append(dst, 'Z')
}

func appendDigits(dst []byte, v, width int) []byte {
	var b [8]byte
	for i := width - 1; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return append(dst, b[:width]...)
}

const hexDigits = "0123456789abcdef"

// appendString appends v as a JSON string. Runs of bytes that need no escaping are copied at once.
func appendString(dst []byte, v string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(v); {
		c := v[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, v[start:i]...)
			dst = appendEscape(dst, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(v[i:])
		if (r == utf8.RuneError && size == 1) || r == '\u2028' || r == '\u2029' {
			dst = append(dst, v[start:i]...)
			dst = append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			start = i + size
		}
		i += size
	}
	dst = append(dst, v[start:]...)
	return append(dst, '"')
}

// appendEscape writes an ASCII byte that may not stand in a JSON string as it is (RFC 8259 section 7).
func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// plain tells the bytes that stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()
