package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// UnneededCAs lists the CAs that no handshake has used for at least unusedFor,
// although another CA of their trust bundle has verified a peer. It omits a CA that
// was the last to verify an endpoint or a listener's clients.
func UnneededCAs(all []*adminv1.CertificateInUse, now time.Time, unusedFor time.Duration) []string {
	used := map[string]time.Time{} // the last use of a CA of each bundle
	for _, crt := range all {
		if last := crt.GetEvidence().GetLastVerifiedTime(); last != nil && last.AsTime().After(used[crt.GetName()]) {
			used[crt.GetName()] = last.AsTime()
		}
	}
	var out []string
	for _, crt := range all {
		e := crt.GetEvidence()
		if e == nil {
			continue
		}
		since, never := e.GetSinceTime().AsTime(), e.GetLastVerifiedTime() == nil
		if !never {
			since = e.GetLastVerifiedTime().AsTime()
		}
		if e.GetNeededByCount() > 0 || now.Sub(since) < unusedFor || !used[crt.GetName()].After(since) {
			continue
		}
		verdict := "is no longer needed: no handshake has used it since"
		switch {
		case never: // it may be a CA for the future
			verdict = "is not in use: no handshake has used it since recording began on"
		case e.GetUnknownCount() > 0:
			verdict = "may no longer be needed: no handshake has used it since"
		}
		line := fmt.Sprintf("CA %s of trust bundle %s %s %s.", crt.GetInfo().GetSubject(), crt.GetName(), verdict, since.Format("2006-01-02 15:04"))
		if n := int(e.GetUnknownCount()); n > 0 {
			line += fmt.Sprintf(" The gateway has not verified %s since it started.", anchorUsers(e.GetUnknown(), n))
		}
		out = append(out, line)
	}
	return out
}

// anchorUsers lists endpoints and clients of listeners: "upstream payments
// 10.0.0.1:443, clients of listener web for api.example.com, and 7 more".
func anchorUsers(users []*adminv1.AnchorUser, total int) string {
	const most = 5
	var parts []string
	for _, u := range users[:min(len(users), most)] {
		switch text := KindLabel(u.GetKind()) + " " + u.GetName(); {
		case u.GetKind() == adminv1.Kind_KIND_UPSTREAM:
			parts = append(parts, text+" "+u.GetEndpoint())
		case len(u.GetHosts()) > 0:
			parts = append(parts, "clients of "+text+" for "+terminal.FirstThree(u.GetHosts()))
		default:
			parts = append(parts, "clients of "+text)
		}
	}
	text := strings.Join(parts, ", ")
	if more := total - len(parts); more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return text
}

// InUseTable lists certificates in use.
func InUseTable(certificates []*adminv1.CertificateInUse) *terminal.Table {
	t := &terminal.Table{Header: []string{"DAYS LEFT", "UNTIL", "USE", "NAME", "SUBJECT", "USED BY", "SHA-256", "FINDINGS"}}
	for _, crt := range certificates {
		info := crt.GetInfo()
		left, until := fmt.Sprint(crt.GetDaysLeft()), ""
		if crt.GetDaysLeft() < 0 {
			left = "expired"
		}
		if info.GetNotAfter() != nil {
			until = info.GetNotAfter().AsTime().Format("2006-01-02")
		}
		name := crt.GetName()
		if crt.GetEndpoint() != "" {
			name += " " + crt.GetEndpoint()
		}
		subject := info.GetSubject()
		switch {
		case subject == "" && crt.GetUse() == adminv1.CertificateUse_CERTIFICATE_USE_CRL:
			subject = info.GetIssuer()
		case subject == "":
			subject = terminal.FirstThree(info.GetSans())
		}
		t.Add(left, until, format.Lower(crt.GetUse()), name, subject, usedBy(crt), ShortFingerprint(info), findings(info))
	}
	return t
}

// usedBy lists the resources that use a certificate: "listener web, upstream payments +7".
func usedBy(crt *adminv1.CertificateInUse) string {
	const most = 5
	var out []string
	for _, r := range crt.GetUsedBy() {
		if len(out) < most {
			out = append(out, KindLabel(r.GetKind())+" "+r.GetName())
		}
	}
	text := strings.Join(out, ", ")
	if more := int(crt.GetUsedByCount()) - len(out); more > 0 {
		text += fmt.Sprintf(" +%d", more)
	}
	return text
}

// CertificateTable lists resources of kind Certificate.
func CertificateTable(resources []*adminv1.Resource, now time.Time) *terminal.Table {
	t := &terminal.Table{Header: []string{"NAME", "SUBJECT", "SANS", "DAYS LEFT", "KEY", "SOURCE", "SHA-256", "FINDINGS"}}
	for _, r := range resources {
		crt := r.GetCertificate()
		info, source := crt.GetInfo(), "pem"
		switch crt.GetSource().(type) {
		case *adminv1.Certificate_Files:
			source = "files"
		case *adminv1.Certificate_Pkcs12:
			source = "pkcs12"
		}
		t.Add(crt.GetName(), info.GetSubject(), terminal.FirstThree(info.GetSans()), DaysLeft(info, now), info.GetKeyType(), source, ShortFingerprint(info), findings(info))
	}
	return t
}

// TrustBundleTable lists resources of kind TrustBundle.
func TrustBundleTable(resources []*adminv1.Resource, now time.Time) *terminal.Table {
	t := &terminal.Table{Header: []string{"NAME", "SOURCE", "CAS", "SUBJECTS", "DAYS LEFT", "CRLS"}}
	for _, r := range resources {
		b := r.GetTrustBundle()
		source := "pem"
		switch s := b.GetSource().(type) {
		case *adminv1.TrustBundle_File:
			source = s.File
		case *adminv1.TrustBundle_System:
			source = "system"
		}
		var subjects []string
		var first *adminv1.CertificateInfo // the certificate that expires first
		for _, info := range b.GetInfo().GetCertificates() {
			subjects = append(subjects, info.GetSubject())
			if first == nil || info.GetNotAfter().AsTime().Before(first.GetNotAfter().AsTime()) {
				first = info
			}
		}
		t.Add(b.GetName(), source, fmt.Sprint(b.GetInfo().GetCount()), terminal.FirstThree(subjects), DaysLeft(first, now), revocationLists(b.GetInfo().GetCrls(), now))
	}
	return t
}

// revocationLists describes revocation lists by their number and the next update: "2,
// next update in 6 days".
func revocationLists(crls []*adminv1.CrlInfo, now time.Time) string {
	var first time.Time
	for _, crl := range crls {
		if due := crl.GetNextUpdate().AsTime(); first.IsZero() || due.Before(first) {
			first = due
		}
	}
	switch left := first.Sub(now); {
	case len(crls) == 0:
		return ""
	case left < 0:
		return fmt.Sprintf("%d, OUTDATED", len(crls))
	default:
		return fmt.Sprintf("%d, next update in %s", len(crls), terminal.Count(int(left/(24*time.Hour)), "day"))
	}
}

// DaysLeft returns the number of whole days until info's certificate expires, or
// "expired".
func DaysLeft(info *adminv1.CertificateInfo, now time.Time) string {
	if info.GetNotAfter() == nil {
		return ""
	}
	left := info.GetNotAfter().AsTime().Sub(now)
	if left < 0 {
		return "expired"
	}
	return fmt.Sprint(int(left / (24 * time.Hour)))
}

// ShortFingerprint returns the first digits of a fingerprint, enough to distinguish two.
func ShortFingerprint(info *adminv1.CertificateInfo) string {
	f := strings.ToLower(strings.ReplaceAll(info.GetSha256Fingerprint(), ":", ""))
	return f[:min(16, len(f))]
}

// findings lists the warnings of a certificate.
func findings(info *adminv1.CertificateInfo) string {
	var words []string
	for _, f := range info.GetFindings() {
		words = append(words, format.Word(f))
	}
	return strings.Join(words, ",")
}
