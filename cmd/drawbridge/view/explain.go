package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// WriteExplanation writes a response for people.
func WriteExplanation(w io.Writer, p terminal.Paint, req *adminv1.ExplainRouteRequest, answer *adminv1.ExplainRouteResponse) error {
	var out bytes.Buffer
	action := format.Lower(answer.GetAction())
	if answer.GetCode() != 0 {
		action += fmt.Sprintf(" %d", answer.GetCode())
	}
	if answer.GetAction() == adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE {
		action = p.Bad(terminal.Printable(action))
	} else {
		action = p.Good(terminal.Printable(action))
	}
	by := "by no route"
	if answer.GetRoute() != "" {
		by = "by route " + p.Strong(terminal.Printable(answer.GetRoute()))
	}
	fmt.Fprintf(&out, "%s  %s\n", action, by)
	fmt.Fprintf(&out, "  %s\n", terminal.Printable(answer.GetWhy()))
	if as := answer.GetHost() + answer.GetPath(); as != "" && as != req.GetHost()+req.GetPath() { // the request was normalized, or a default applies
		fmt.Fprintf(&out, "  %s %s\n", p.Faint("read as"), terminal.Printable(as))
	}
	if path := answer.GetUpstreamPath(); path != "" && path != answer.GetPath() { // the path was rewritten
		fmt.Fprintf(&out, "  %s %s\n", p.Faint("sent as"), terminal.Printable(path))
	}
	if policy := answer.GetTlsPolicy(); policy != nil {
		fmt.Fprintf(&out, "  %s %s\n", p.Faint("client TLS"), terminal.Printable(policyText(policy)))
	}
	for _, u := range answer.GetUpstreams() {
		writeExplainedUpstream(&out, p, u)
	}
	_, err := w.Write(out.Bytes())
	return err
}

// policyText describes the TLS settings that apply to the client: "tls.policies[0] for
// pay.example.com, certificate pay, client certificate required, trust clients".
func policyText(t *adminv1.ExplainedTlsPolicy) string {
	text := t.GetField()
	if len(t.GetHosts()) > 0 {
		text += " for " + terminal.FirstThree(t.GetHosts())
	}
	text += ", certificate " + terminal.FirstThree(t.GetCertificates()) + clientAuthText(t.GetClientAuth())
	if len(t.GetClientTrustBundles()) > 0 {
		text += ", trust " + terminal.FirstThree(t.GetClientTrustBundles())
	}
	return text
}

func writeExplainedUpstream(out *bytes.Buffer, p terminal.Paint, u *adminv1.ExplainedUpstream) {
	fmt.Fprintf(out, "\n%s  %.4g%%\n", p.Strong("upstream "+terminal.Printable(u.GetName())), u.GetPercent())
	if u.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
		fmt.Fprintf(out, "  %s\n", p.Bad(terminal.Printable("down: "+downReason(u))))
	}
	fact := func(name, value string) {
		fmt.Fprintf(out, "  %s %s\n", p.Faint(terminal.Pad(name, 18)), terminal.Printable(value))
	}
	tls := false
	for _, e := range u.GetEndpoints() {
		tls = tls || e.GetTls()
	}
	if tls {
		certificate := u.GetCertificate()
		switch {
		case certificate == "":
			certificate = "none"
		case u.GetSha256Fingerprint() != "":
			certificate += " (SHA-256 " + u.GetSha256Fingerprint() + ")"
		}
		fact("client certificate", certificate)
		verification := u.GetVerification()
		if verification == adminv1.Verification_VERIFICATION_UNSPECIFIED {
			verification = adminv1.Verification_VERIFICATION_FULL // unspecified means full
		}
		if verification != adminv1.Verification_VERIFICATION_INSECURE_SKIP {
			trust := strings.Join(u.GetTrustBundles(), ", ")
			if trust == "" {
				trust = "the system's roots"
			}
			fact("trust", trust)
		}
		fact("verification", format.Word(verification))
	}
	for _, e := range u.GetEndpoints() {
		var notes []string
		if u.GetPassthrough() {
			notes = append(notes, "the client's own TLS")
		} else if !e.GetTls() {
			notes = append(notes, "plaintext")
		} else {
			sni := e.GetServerName()
			if sni == "" {
				sni = "none"
			}
			notes = append(notes, "SNI "+sni)
			if len(e.GetVerifyNames()) > 0 {
				notes = append(notes, "verified for "+strings.Join(e.GetVerifyNames(), " or "))
			}
		}
		if e.GetBackup() {
			notes = append(notes, "backup")
		}
		switch {
		case e.GetDraining():
			notes = append(notes, "draining")
		case e.GetUnavailableReason() != "":
			notes = append(notes, "takes no traffic: "+e.GetUnavailableReason())
		}
		fmt.Fprintf(out, "  %s  %s\n", p.Strong(terminal.Printable(e.GetAddress())), terminal.Printable(strings.Join(notes, ", ")))
	}
	if n := int(u.GetEndpointCount()) - len(u.GetEndpoints()); n > 0 {
		fmt.Fprintf(out, "  and %s\n", terminal.Count(n, "more endpoint"))
	}
}
