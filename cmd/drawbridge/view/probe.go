package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// WriteProbe writes results for people, the cause of a failure first.
func WriteProbe(w io.Writer, p terminal.Paint, results []*adminv1.ProbeResult, now time.Time) error {
	var out bytes.Buffer
	for i, r := range results {
		if i > 0 {
			out.WriteByte('\n')
		}
		writeProbeResult(&out, p, r, now)
	}
	_, err := w.Write(out.Bytes())
	return err
}

func writeProbeResult(w io.Writer, p terminal.Paint, r *adminv1.ProbeResult, now time.Time) {
	fmt.Fprintf(w, "%s  %s\n", p.Strong(terminal.Printable(r.GetEndpoint())), outcome(p, r.GetOutcome(), r.GetReason()))
	if r.GetExplanation() != "" {
		fmt.Fprintf(w, "  %s\n", terminal.Printable(r.GetExplanation()))
	}
	if r.GetSuggestion().GetText() != "" {
		fmt.Fprintf(w, "  %s %s\n", p.Caution("→"), p.Strong(terminal.Printable(r.GetSuggestion().GetText())))
	}

	fact := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %s %s\n", p.Faint(terminal.Pad(name, 14)), terminal.Printable(value))
		}
	}
	if r.GetRemoteAddress() != r.GetEndpoint() {
		fact("address", r.GetRemoteAddress())
	}
	if handshakeDone := r.GetVersion() != adminv1.TlsVersion_TLS_VERSION_UNSPECIFIED; handshakeDone || len(r.GetChain()) > 0 || r.GetServerName() != "" {
		sni := r.GetServerName()
		if sni == "" {
			sni = "none sent"
		}
		fact("SNI", sni)
		fact("verify name", r.GetVerifyName())
		if handshakeDone {
			fact("negotiated", negotiated(r))
			fact("sessions", map[bool]string{true: "the upstream sent a ticket", false: "the upstream sent no ticket"}[r.GetResumptionOffered()])
		}
		fact("client cert", clientCertificate(r, handshakeDone))
		fact("accepted CAs", terminal.JoinUpTo(r.GetAcceptableCas(), 5))
	}
	if s := r.GetResponseStatus(); s != 0 {
		fact("response", fmt.Sprint(s))
	}
	fact("timings", timings(r.GetTimings()))

	if len(r.GetChain()) > 0 {
		fmt.Fprintf(w, "  %s\n", p.Faint("chain"))
		viewChain(r, now).write(w, p, "    ")
	}
	if len(r.GetAttempts()) > 0 {
		fmt.Fprintf(w, "  %s\n", p.Faint("also tried"))
		width := 0
		for _, a := range r.GetAttempts() {
			width = max(width, utf8.RuneCountInString(terminal.Printable(a.GetChange())))
		}
		for _, a := range r.GetAttempts() {
			fmt.Fprintf(w, "    %s  %s\n", terminal.Pad(terminal.Printable(a.GetChange()), width), outcome(p, a.GetOutcome(), a.GetReason()))
		}
	}
}

// outcome returns "OK", or "FAILED" with the reason.
func outcome(p terminal.Paint, o adminv1.ProbeOutcome, reason adminv1.Reason) string {
	if o == adminv1.ProbeOutcome_PROBE_OUTCOME_OK {
		return p.Good("OK")
	}
	text := format.Word(o)
	if reason != adminv1.Reason_REASON_UNSPECIFIED {
		text += "  " + format.Word(reason)
	}
	return p.Bad(text)
}

func negotiated(r *adminv1.ProbeResult) string {
	parts := []string{"TLS " + strings.ReplaceAll(format.Word(r.GetVersion()), "_", ".")}
	for _, s := range []string{r.GetCipherSuite(), r.GetGroup()} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if r.GetAlpn() != "" {
		parts = append(parts, "ALPN "+r.GetAlpn())
	}
	return strings.Join(parts, ", ")
}

// clientCertificate describes whether the endpoint requested a client certificate and
// whether we sent one. It returns "" if the handshake ended before that was known.
func clientCertificate(r *adminv1.ProbeResult, handshakeDone bool) string {
	switch {
	case r.GetClientCertificateSent():
		return "requested, ours was sent"
	case r.GetClientCertificateRequested():
		return "requested, but none was sent"
	case handshakeDone:
		return "not requested"
	}
	return ""
}

// timings lists the steps that ran: "dns 1.2ms, connect 300µs".
func timings(t *adminv1.ProbeTimings) string {
	var parts []string
	for _, step := range []struct {
		name string
		took *durationpb.Duration
	}{{"dns", t.GetDns()}, {"connect", t.GetConnect()}, {"handshake", t.GetHandshake()}} {
		if step.took != nil {
			parts = append(parts, step.name+" "+terminal.Brief(step.took.AsDuration()))
		}
	}
	return strings.Join(parts, ", ")
}
