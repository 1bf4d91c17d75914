package audit

import (
	"bytes"
	"encoding/json"
	"time"
)

// Results of records that are not gRPC codes.
const Started = "STARTED" // the result in the first line of a write

// A Record is one line of the log. Zero fields are left out.
type Record struct {
	Time time.Time `json:"time"` // set by the Log

	// Write connects the two lines of a write: the line at its start, and the line
	// with its result.
	Write string `json:"write,omitempty"`

	Principal string `json:"principal"` // "uid:0", "cert:CN=ops", "gateway"
	Address   string `json:"address,omitempty"`
	Transport string `json:"transport,omitempty"` // "UNIX", "TCP", "INTERNAL"
	Method    string `json:"method"`
	DryRun    bool   `json:"dry_run,omitempty"`
	Comment   string `json:"comment,omitempty"`

	// Resources are the resources that the request names, such as "Upstream payments",
	// and ResourceCount is their number if not all are listed.
	Resources     []string `json:"resources,omitempty"`
	ResourceCount int      `json:"resource_count,omitempty"`

	// Selection says which connections are closed or drained.
	Selection string `json:"selection,omitempty"`

	// RevisionBefore is the live revision when the write began. In the second line it is
	// the revision that the write replaced.
	RevisionBefore int64  `json:"revision_before,omitempty"`
	RevisionAfter  int64  `json:"revision_after,omitempty"`
	Result         string `json:"result"` // Started, or a code such as "OK"
	Error          string `json:"error,omitempty"`
}

// maxResources bounds how many resources a line lists.
const maxResources = 100

// line returns the record as a line of JSON. Control characters are escaped, so that a
// request cannot forge a line.
func (r Record) line(now time.Time) []byte {
	r.Time = now.UTC()
	if n := len(r.Resources); n > maxResources {
		r.Resources, r.ResourceCount = r.Resources[:maxResources], n
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(r) // encoding texts, numbers and a time cannot fail
	return b.Bytes()
}
