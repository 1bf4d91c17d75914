package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// writeProbe writes results for people, the cause of a failure first.
func writeProbe(w io.Writer, p paint, results []*adminv1.ProbeResult, now time.Time) error {
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

func writeProbeResult(w io.Writer, p paint, r *adminv1.ProbeResult, now time.Time) {
	fmt.Fprintf(w, "%s  %s\n", p.strong(printable(r.GetEndpoint())), outcome(p, r.GetOutcome(), r.GetReason()))
	if r.GetExplanation() != "" {
		fmt.Fprintf(w, "  %s\n", printable(r.GetExplanation()))
	}
	if r.GetSuggestion().GetText() != "" {
		fmt.Fprintf(w, "  %s %s\n", p.caution("→"), p.strong(printable(r.GetSuggestion().GetText())))
	}

	fact := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %s %s\n", p.faint(pad(name, 14)), printable(value))
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
			fact("sessions", map[bool]string{true: "a ticket was given", false: "no ticket was given"}[r.GetResumptionOffered()])
		}
		fact("client cert", clientCertificate(r, handshakeDone))
		fact("accepted CAs", some(r.GetAcceptableCas(), 5))
	}
	if s := r.GetResponseStatus(); s != 0 {
		fact("response", fmt.Sprint(s))
	}
	fact("timings", timings(r.GetTimings()))

	if len(r.GetChain()) > 0 {
		fmt.Fprintf(w, "  %s\n", p.faint("chain"))
		viewChain(r, now).write(w, p, "    ")
	}
	if len(r.GetAttempts()) > 0 {
		fmt.Fprintf(w, "  %s\n", p.faint("also tried"))
		width := 0
		for _, a := range r.GetAttempts() {
			width = max(width, utf8.RuneCountInString(printable(a.GetChange())))
		}
		for _, a := range r.GetAttempts() {
			fmt.Fprintf(w, "    %s  %s\n", pad(printable(a.GetChange()), width), outcome(p, a.GetOutcome(), a.GetReason()))
		}
	}
}

// outcome is "OK", or "FAILED" with the reason.
func outcome(p paint, o adminv1.ProbeOutcome, reason adminv1.Reason) string {
	if o == adminv1.ProbeOutcome_PROBE_OUTCOME_OK {
		return p.good("OK")
	}
	text := word(o)
	if reason != adminv1.Reason_REASON_UNSPECIFIED {
		text += "  " + word(reason)
	}
	return p.bad(text)
}

func negotiated(r *adminv1.ProbeResult) string {
	parts := []string{"TLS " + strings.ReplaceAll(word(r.GetVersion()), "_", ".")}
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

// clientCertificate says whether the endpoint requested a client certificate and whether
// one was sent. It returns "" if the handshake ended before that was known.
func clientCertificate(r *adminv1.ProbeResult, handshakeDone bool) string {
	switch {
	case r.GetClientCertificateSent():
		return "asked for, ours was sent"
	case r.GetClientCertificateRequested():
		return "asked for, none was sent"
	case handshakeDone:
		return "not asked for"
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
			parts = append(parts, step.name+" "+brief(step.took.AsDuration()))
		}
	}
	return strings.Join(parts, ", ")
}

// brief rounds d to a readable precision.
func brief(d time.Duration) string {
	switch {
	case d >= time.Second:
		d = d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		d = d.Round(10 * time.Microsecond)
	default:
		d = d.Round(time.Microsecond)
	}
	return d.String()
}

// pad fills text with spaces to a width.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 0))
}
