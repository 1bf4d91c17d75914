package admin

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
)

// A status travels in HTTP/2 trailers, and several gRPC clients reject header lists
// above 8 KiB: the call would then fail without a message. These limits bound how many
// faults are listed; the total is always reported.
const (
	maxListed      = 20      // faults in the status message
	maxMessageText = 1 << 10 // bytes of the status message
	maxStatus      = 7 << 10 // bytes of message and details, as encoded on the wire
	maxField       = 200     // bytes of one fault's path
	maxFault       = 300     // bytes of one fault's text
)

const domain = "drawbridge"

// answers returns the code for a class of fault, and its reason in
// google.rpc.ErrorInfo.
func answers(c invalid.Class) (codes.Code, string) {
	switch c {
	case invalid.Argument:
		return codes.InvalidArgument, "INVALID"
	case invalid.NotFound:
		return codes.NotFound, "NOT_FOUND"
	case invalid.Conflict:
		return codes.Aborted, "STALE"
	case invalid.Exists:
		return codes.AlreadyExists, "ALREADY_EXISTS"
	case invalid.InUse:
		return codes.FailedPrecondition, "IN_USE"
	case invalid.Pending:
		return codes.FailedPrecondition, "PENDING"
	case invalid.Unproven:
		return codes.FailedPrecondition, "PROBE_FAILED"
	case invalid.Exhausted:
		return codes.ResourceExhausted, "LIMIT_REACHED"
	case invalid.Unavailable:
		return codes.Unavailable, "UNAVAILABLE"
	}
	return codes.Internal, "INTERNAL"
}

// statusOf returns the status for err, or nil for nil. ok is false if the API has no
// status for err; the status then reveals nothing about it.
func statusOf(err error) (st *status.Status, ok bool) {
	var faults *invalid.Error
	switch {
	case err == nil:
		return nil, true
	case errors.As(err, &faults):
		return faultStatus(faults), true
	case errors.Is(err, context.DeadlineExceeded):
		return statusWith(codes.DeadlineExceeded, "DEADLINE_EXCEEDED", "the call took too long"), true
	case errors.Is(err, context.Canceled):
		return statusWith(codes.Canceled, "CANCELLED", "the call was canceled"), true
	}
	if st, ok := status.FromError(err); ok {
		return st, true
	}
	return errInternal(), false
}

func errInternal() *status.Status {
	return statusWith(codes.Internal, "INTERNAL", "internal error; the gateway's log has the details")
}

func errStopping() error {
	return statusWith(codes.Unavailable, "STOPPING", "the gateway is stopping").Err()
}

// statusWith returns a status without faults.
func statusWith(c codes.Code, reason, message string) *status.Status {
	return detailed(c, message, &errdetails.ErrorInfo{Reason: reason, Domain: domain})
}

func detailed(c codes.Code, message string, details ...protoadapt.MessageV1) *status.Status {
	st, err := status.New(c, message).WithDetails(details...)
	if err != nil {
		return status.New(c, message) // the code and the message matter most
	}
	return st
}

// faultStatus returns a status with as many of the faults as fit.
func faultStatus(e *invalid.Error) *status.Status {
	code, reason := answers(e.Worst())
	info := &errdetails.ErrorInfo{
		Reason:   reason,
		Domain:   domain,
		Metadata: map[string]string{"faults": strconv.Itoa(len(e.Faults))},
	}
	message := faultMessage(e.Faults)
	most := maxStatus
	if len(e.Details) > 0 {
		most /= 2 // leave room for the details
	}
	for n := min(len(e.Faults), 256); ; n = n * 7 / 8 {
		st := detailed(code, message, info, faultDetail(code, reason, e.Faults, n))
		if n == 0 || wireSize(st) <= most {
			return withDetails(st, e.Details)
		}
	}
}

// faultMessage returns the text for people, which grpcurl and the command line
// show.
func faultMessage(faults []invalid.Fault) string {
	if len(faults) == 1 {
		return faultText(faults[0])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults:", len(faults))
	for i, f := range faults {
		line := "\n" + faultText(f)
		if i == maxListed || b.Len()+len(line) > maxMessageText {
			fmt.Fprintf(&b, "\nand %d more", len(faults)-i)
			break
		}
		b.WriteString(line)
	}
	return b.String()
}

func faultText(f invalid.Fault) string {
	if f.Field == "" {
		return sanitize(f.Message, maxFault)
	}
	return sanitize(string(f.Field), maxField) + ": " + sanitize(f.Message, maxFault)
}

// faultDetail returns the message for programs: the first n faults in
// google.rpc's message for the code, and another entry if some were left out.
func faultDetail(c codes.Code, reason string, faults []invalid.Fault, n int) protoadapt.MessageV1 {
	listed := make([]invalid.Fault, 0, n+1)
	for _, f := range faults[:n] {
		listed = append(listed, invalid.Fault{Field: invalid.Path(sanitize(string(f.Field), maxField)), Message: sanitize(f.Message, maxFault)})
	}
	if left := len(faults) - n; left > 0 {
		listed = append(listed, invalid.Fault{Message: fmt.Sprintf("and %d more", left)})
	}
	switch c {
	case codes.FailedPrecondition:
		d := &errdetails.PreconditionFailure{}
		for _, f := range listed {
			d.Violations = append(d.Violations, &errdetails.PreconditionFailure_Violation{Type: reason, Subject: string(f.Field), Description: f.Message})
		}
		return d
	case codes.ResourceExhausted:
		d := &errdetails.QuotaFailure{}
		for _, f := range listed {
			d.Violations = append(d.Violations, &errdetails.QuotaFailure_Violation{Subject: string(f.Field), Description: f.Message})
		}
		return d
	}
	d := &errdetails.BadRequest{}
	for _, f := range listed {
		d.FieldViolations = append(d.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: string(f.Field), Description: f.Message})
	}
	return d
}

// wireSize returns about how many bytes st takes in trailers: the message
// percent-encoded (grpc-message), then all of it in base64
// (grpc-status-details-bin).
func wireSize(st *status.Status) int {
	n := proto.Size(st.Proto()) * 4 / 3
	for _, c := range []byte(st.Message()) {
		n++
		if c < ' ' || c > '~' || c == '%' {
			n += 2
		}
	}
	return n
}

// sanitize cleans a text that may quote a request, for a response or the log. The result
// is printable, valid UTF-8, has at most most bytes and never holds key material.
func sanitize(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if strings.Contains(s, "PRIVATE KEY") {
		return "(left out: it holds key material)"
	}
	if len(s) <= most {
		return s
	}
	const ellipsis = "…"
	return strings.ToValidUTF8(s[:most-len(ellipsis)], "") + ellipsis
}
