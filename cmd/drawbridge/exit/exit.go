// Package exit turns errors into messages for people and exit codes.
//
// Commands return errors. An Error carries its exit code; AsError turns every other error
// into an Error. RPCError and ApplyError explain each fault of a refused request.
package exit

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Exit codes, as --help documents them.
const (
	OK          = iota
	Failure     // any other error
	Usage       // an error of the command line
	Invalid     // a fault of a file or resource
	NotFound    // the resource does not exist
	Conflict    // a conflict with the current state
	Unavailable // the gateway cannot be reached or cannot serve
	Denied      // the caller may not do this
)

// An Error is an error message for people and its exit code.
type Error struct {
	Code    int
	Summary string
	Faults  []string               // one line for each fault; may be empty
	probes  []*adminv1.ProbeResult // the results of --require-probe
}

// Error returns the faults and the summary, one per line.
func (f *Error) Error() string {
	return strings.Join(append(append([]string{}, f.Faults...), f.Summary), "\n")
}

// Print writes the faults first, so that the summary is right above the next prompt.
func (f *Error) Print(w io.Writer, p terminal.Paint) {
	for _, line := range f.Faults {
		fmt.Fprintln(w, line)
	}
	if len(f.probes) > 0 {
		// An error while an error is printed cannot be reported.
		_ = view.WriteProbe(w, p, f.probes, time.Now())
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "Error:", f.Summary)
}

// UsageError returns an error about the command line.
func UsageError(msg string) error { return &Error{Code: Usage, Summary: msg} }

// AsError returns the Error that err wraps. Faults of a manifest are Invalid, and any
// other error is a Failure.
func AsError(err error) *Error {
	if f, ok := errors.AsType[*Error](err); ok {
		return f
	}
	if faults, ok := errors.AsType[manifest.Faults](err); ok {
		return &Error{Code: Invalid, Summary: terminal.Count(len(faults), "fault") + " in the configuration; nothing was changed", Faults: strings.Split(faults.Error(), "\n")}
	}
	return &Error{Code: Failure, Summary: err.Error()}
}

// A FieldNamer translates a field path of a request for the user, for example to a
// place in a file or to a resource.
type FieldNamer func(path string) string

// InManifest returns the FieldNamer for an Apply of m.
func InManifest(m *manifest.Manifest) FieldNamer {
	return func(path string) string {
		place, field, ok := m.Locate(path)
		switch {
		case !ok:
			return path
		case field == "":
			return place.String()
		}
		return place.String() + ": " + field
	}
}

// RPCError returns an Error with the details of a gRPC error. It returns other errors
// unchanged. name may be nil.
func RPCError(err error, name FieldNamer) error {
	st, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	f := &Error{Code: exitCode(st.Code()), Summary: terminal.Printable(st.Message())}
	total := 0
	add := func(path, message string) {
		if path != "" && name != nil {
			path = name(path)
		}
		if path != "" {
			message = path + ": " + message
		}
		f.Faults = append(f.Faults, terminal.Printable(message))
	}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				add(v.GetField(), v.GetDescription())
			}
		case *errdetails.PreconditionFailure:
			for _, v := range d.GetViolations() {
				add(v.GetSubject(), v.GetDescription())
			}
		case *errdetails.QuotaFailure:
			for _, v := range d.GetViolations() {
				add(v.GetSubject(), v.GetDescription())
			}
		case *adminv1.ProbeUpstreamResponse:
			f.probes = append(f.probes, d.GetResults()...)
		case *errdetails.ErrorInfo: // the count includes faults that did not fit in the response
			total, _ = strconv.Atoi(d.GetMetadata()["faults"])
		}
	}
	if st.Code() == codes.Canceled {
		f.Summary = "interrupted before the gateway answered"
	}
	f.summarize(total)
	return f
}

// ApplyError is RPCError for a gateway in this process.
func ApplyError(err error, name FieldNamer) error {
	bad, ok := errors.AsType[*invalid.Error](err)
	if !ok {
		return err
	}
	f := &Error{Code: Invalid}
	switch bad.Worst() {
	case invalid.Argument:
	case invalid.NotFound:
		f.Code = NotFound
	case invalid.Conflict, invalid.InUse, invalid.Pending:
		f.Code = Conflict
	case invalid.Unavailable:
		f.Code = Unavailable
	default:
		f.Code = Failure
	}
	for _, fault := range bad.Faults {
		line := fault.Message
		if fault.Field != "" {
			line = name(string(fault.Field)) + ": " + line
		}
		f.Faults = append(f.Faults, terminal.Printable(line))
	}
	f.summarize(len(f.Faults))
	return f
}

// summarize makes a single fault the summary. For several faults the summary is their
// number, total, which may be larger than the number of listed faults.
func (f *Error) summarize(total int) {
	switch {
	case len(f.Faults) == 1:
		f.Summary, f.Faults = f.Faults[0], nil
	case len(f.Faults) > 1:
		f.Summary = terminal.Count(max(total, len(f.Faults)), "fault") + "; nothing was changed"
	}
}

func exitCode(c codes.Code) int {
	switch c {
	case codes.OK:
		return OK
	case codes.InvalidArgument:
		return Invalid
	case codes.NotFound:
		return NotFound
	case codes.Aborted, codes.FailedPrecondition:
		return Conflict
	case codes.Unavailable:
		return Unavailable
	case codes.PermissionDenied, codes.Unauthenticated:
		return Denied
	}
	return Failure
}

// NoField omits field paths, for requests whose messages are clear without
// them.
func NoField(string) string { return "" }
