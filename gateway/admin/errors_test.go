package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestEachClassHasItsCodeAndDetail(t *testing.T) {
	for _, tt := range []struct {
		class  invalid.Class
		code   codes.Code
		reason string
		detail string
	}{
		{invalid.Argument, codes.InvalidArgument, "INVALID", `field_violations:{field:"a.b" description:"must be so"}`},
		{invalid.NotFound, codes.NotFound, "NOT_FOUND", `field_violations:{field:"a.b" description:"must be so"}`},
		{invalid.Conflict, codes.Aborted, "STALE", `field_violations:{field:"a.b" description:"must be so"}`},
		{invalid.InUse, codes.FailedPrecondition, "IN_USE", `violations:{type:"IN_USE" subject:"a.b" description:"must be so"}`},
		{invalid.Unproven, codes.FailedPrecondition, "PROBE_FAILED", `violations:{type:"PROBE_FAILED" subject:"a.b" description:"must be so"}`},
		{invalid.Exhausted, codes.ResourceExhausted, "LIMIT_REACHED", `violations:{subject:"a.b" description:"must be so"}`},
		{invalid.Unavailable, codes.Unavailable, "UNAVAILABLE", `field_violations:{field:"a.b" description:"must be so"}`},
	} {
		st, ok := statusOf(fmt.Errorf("wrapped: %w", invalid.Errorf(tt.class, "a.b", "must be so")))
		if !ok || st.Code() != tt.code || st.Message() != "a.b: must be so" {
			t.Errorf("class %d: %v, %v", tt.class, st, ok)
		}
		if info := detail[*errdetails.ErrorInfo](t, st.Err()); info.GetReason() != tt.reason || info.GetDomain() != "drawbridge" {
			t.Errorf("class %d: %v", tt.class, info)
		}
		// The text form has one or two spaces, at random by design.
		got := strings.ReplaceAll(fmt.Sprint(st.Details()[1]), "  ", " ")
		if got != tt.detail {
			t.Errorf("class %d: detail %s, want %s", tt.class, got, tt.detail)
		}
	}
}

func TestAnUnknownErrorRevealsNothing(t *testing.T) {
	st, ok := statusOf(errors.New("open /var/lib/secret: no such file"))
	if ok || st.Code() != codes.Internal || strings.Contains(st.Message(), "secret") {
		t.Errorf("status = %v, %v", st, ok)
	}
	for err, want := range map[error]codes.Code{
		context.Canceled:         codes.Canceled,
		context.DeadlineExceeded: codes.DeadlineExceeded,
	} {
		if st, ok := statusOf(fmt.Errorf("commit: %w", err)); !ok || st.Code() != want {
			t.Errorf("status of %v = %v, %v", err, st, ok)
		}
	}
	if st, ok := statusOf(nil); !ok || st != nil {
		t.Errorf("status of nil = %v, %v", st, ok)
	}
}

func TestTenThousandFaultsReachAClientWithASmallHeaderLimit(t *testing.T) {
	r := start(t)
	conn := dial(t, r.socket, grpc.WithMaxHeaderListSize(8<<10))
	defer conn.Close()
	for _, name := range []string{"Bad Name", strings.Repeat("ü", 200), strings.Repeat("\x00%", 100)} {
		req := &adminv1.ApplyRequest{}
		for i := range 10_000 { // with different names, because a repeated name is another fault
			req.Resources = append(req.Resources, store.Wrap(upstream(fmt.Sprint(name, i))))
		}
		_, err := adminv1.NewAdminServiceClient(conn).Apply(t.Context(), req)
		wantCode(t, err, codes.InvalidArgument)
		if m := status.Convert(err).Message(); !strings.HasPrefix(m, "10000 faults:\nresources[0].upstream.name: is ") || !strings.Contains(m, "\nand 99") {
			t.Errorf("message = %s", m)
		}
		v := detail[*errdetails.BadRequest](t, err).GetFieldViolations()
		if len(v) < 5 || v[0].GetField() != "resources[0].upstream.name" || v[len(v)-1].GetDescription() != fmt.Sprintf("and %d more", 10_000-len(v)+1) {
			t.Errorf("%d violations, the last is %v", len(v), v[len(v)-1])
		}
		if info := detail[*errdetails.ErrorInfo](t, err); info.GetMetadata()["faults"] != "10000" {
			t.Errorf("ErrorInfo = %v", info)
		}
	}
}

func TestAFewDozenFaultsAreAllListed(t *testing.T) {
	e := &invalid.Error{}
	for i := range 30 {
		e.Faults = append(e.Faults, invalid.Fault{
			Field:   invalid.Path("upstream.endpoints").Index(i).Field("address"),
			Message: `must be "host:port", "[::1]:443" or "unix:/path"`,
		})
	}
	st := faultStatus(e)
	if v := detail[*errdetails.BadRequest](t, st.Err()).GetFieldViolations(); len(v) != 30 {
		t.Errorf("%d of 30 faults reported", len(v))
	}
	if n := wireSize(st); n > maxStatus {
		t.Errorf("%d bytes on the wire", n)
	}
}

func FuzzStatusDetails(f *testing.F) {
	f.Add("plain", 10)
	f.Add("\x1b[31mred\xff\n", 200)
	f.Add("-----BEGIN PRIVATE KEY-----", 20)
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = 40 + abs(most)%400
		got := sanitize(s, most)
		if len(got) > most || !utf8.ValidString(got) || strings.Contains(got, "PRIVATE KEY") || strings.ContainsAny(got, "\n\r\x1b") {
			t.Errorf("sanitize(%q, %d) = %q", s, most, got)
		}
	})
}

func abs(n int) int { return max(n, -(n + 1)) }
