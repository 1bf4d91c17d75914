package main

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
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Exit codes, as --help documents them.
const (
	exitOK = iota
	exitFailure
	exitUsage
	exitInvalid
	exitNotFound
	exitConflict
	exitUnavailable
	exitDenied
)

// A failure is an error message for people and its exit code.
type failure struct {
	code    int
	summary string
	faults  []string               // one line each; may be empty
	probes  []*adminv1.ProbeResult // the results of --require-probe
}

func (f *failure) Error() string {
	return strings.Join(append(append([]string{}, f.faults...), f.summary), "\n")
}

// print writes the faults first, so that the summary is right above the next prompt.
func (f *failure) print(w io.Writer, p paint) {
	for _, line := range f.faults {
		fmt.Fprintln(w, line)
	}
	if len(f.probes) > 0 {
		// An error of writing an error cannot be reported.
		_ = writeProbe(w, p, f.probes, time.Now())
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "Error:", f.summary)
}

func usageError(msg string) error { return &failure{code: exitUsage, summary: msg} }

// asFailure returns err as a failure.
func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if faults, ok := errors.AsType[manifest.Faults](err); ok {
		return &failure{code: exitInvalid, summary: count(len(faults), "fault") + " in the configuration; nothing was changed", faults: strings.Split(faults.Error(), "\n")}
	}
	return &failure{code: exitFailure, summary: err.Error()}
}

// A fieldNamer translates a field path of a request for the user: to a place in a file,
// or to a resource.
type fieldNamer func(path string) string

// inManifest names fields of an Apply of m.
func inManifest(m *manifest.Manifest) fieldNamer {
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

// rpcFailure returns the details of a gRPC error as a failure. name may be nil.
func rpcFailure(err error, name fieldNamer) error {
	st, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	f := &failure{code: exitCode(st.Code()), summary: printable(st.Message())}
	total := 0
	add := func(path, message string) {
		if path != "" && name != nil {
			path = name(path)
		}
		if path != "" {
			message = path + ": " + message
		}
		f.faults = append(f.faults, printable(message))
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
		case *errdetails.ErrorInfo: // its count includes faults that did not fit in the response
			total, _ = strconv.Atoi(d.GetMetadata()["faults"])
		}
	}
	if st.Code() == codes.Canceled {
		f.summary = "interrupted before the gateway answered"
	}
	f.summarize(total)
	return f
}

// applyFailure is rpcFailure for a gateway in this process.
func applyFailure(err error, name fieldNamer) error {
	bad, ok := errors.AsType[*invalid.Error](err)
	if !ok {
		return err
	}
	f := &failure{code: exitInvalid}
	switch bad.Worst() {
	case invalid.Argument:
	case invalid.NotFound:
		f.code = exitNotFound
	case invalid.Conflict, invalid.InUse, invalid.Pending:
		f.code = exitConflict
	case invalid.Unavailable:
		f.code = exitUnavailable
	default:
		f.code = exitFailure
	}
	for _, fault := range bad.Faults {
		line := fault.Message
		if fault.Field != "" {
			line = name(string(fault.Field)) + ": " + line
		}
		f.faults = append(f.faults, printable(line))
	}
	f.summarize(len(f.faults))
	return f
}

// summarize uses a single fault as the summary, and counts several. total may be larger
// than the number of listed faults.
func (f *failure) summarize(total int) {
	switch {
	case len(f.faults) == 1:
		f.summary, f.faults = f.faults[0], nil
	case len(f.faults) > 1:
		f.summary = count(max(total, len(f.faults)), "fault") + "; nothing was changed"
	}
}

func exitCode(c codes.Code) int {
	switch c {
	case codes.OK:
		return exitOK
	case codes.InvalidArgument:
		return exitInvalid
	case codes.NotFound:
		return exitNotFound
	case codes.Aborted, codes.FailedPrecondition:
		return exitConflict
	case codes.Unavailable:
		return exitUnavailable
	case codes.PermissionDenied, codes.Unauthenticated:
		return exitDenied
	}
	return exitFailure
}

// count returns "1 fault", "2 faults".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
