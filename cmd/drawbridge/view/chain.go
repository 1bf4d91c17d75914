package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A chainView is an endpoint's chain in order, with each fault at its certificate.
type chainView struct {
	certs     []*adminv1.CertificateInfo
	path      []int            // indices into certs: the leaf, its issuer, the issuer's issuer, …
	unrelated []int            // presented, but not in the path
	issuer    string           // the issuer of the path's last certificate, if not presented
	faults    map[int][]string // faults by index; at missing, the faults of the missing issuer
	now       time.Time
}

const missing = -1

// viewChain orders the chain of r and locates its fault.
func viewChain(r *adminv1.ProbeResult, now time.Time) *chainView {
	v := &chainView{certs: r.GetChain(), faults: make(map[int][]string), now: now}
	if len(v.certs) == 0 {
		return v
	}
	v.path = []int{0}
	for {
		last := v.certs[v.path[len(v.path)-1]]
		if last.GetIssuer() == last.GetSubject() {
			break // self-signed
		}
		next := slices.IndexFunc(v.certs, func(c *adminv1.CertificateInfo) bool {
			return c.GetSubject() == last.GetIssuer() && !slices.Contains(v.path, slices.Index(v.certs, c))
		})
		if next < 0 {
			v.issuer = last.GetIssuer()
			break
		}
		v.path = append(v.path, next)
	}
	for i, c := range v.certs {
		if !slices.Contains(v.path, i) {
			v.unrelated = append(v.unrelated, i)
		}
		switch {
		case c.GetNotAfter() != nil && c.GetNotAfter().AsTime().Before(now):
			v.faults[i] = []string{"expired " + terminal.Ago(now.Sub(c.GetNotAfter().AsTime()))}
		case c.GetNotBefore() != nil && c.GetNotBefore().AsTime().After(now):
			v.faults[i] = []string{"is not valid before " + c.GetNotBefore().AsTime().Format(time.RFC3339)}
		}
	}
	if at, what := v.faulty(r); what != "" {
		v.faults[at] = append(v.faults[at], what)
	}
	return v
}

// faulty returns the certificate that caused a failure, and the fault. The fault is empty
// if no certificate caused the failure, or if the cause is a validity period, which is
// shown at each certificate.
func (v *chainView) faulty(r *adminv1.ProbeResult) (at int, fault string) {
	top := v.path[len(v.path)-1]
	switch r.GetReason() {
	case adminv1.Reason_REASON_NAME_MISMATCH:
		return 0, "is not for " + r.GetVerifyName()
	case adminv1.Reason_REASON_UNKNOWN_CA:
		if v.issuer != "" {
			return missing, "not presented, and not among the trusted CAs"
		}
		return top, "is not trusted"
	case adminv1.Reason_REASON_DEPTH_EXCEEDED:
		if len(v.path) > 1 {
			return v.path[1], "more intermediates than tls.verify_depth allows"
		}
	case adminv1.Reason_REASON_WRONG_KEY_USAGE:
		return 0, "may not be used by a server"
	case adminv1.Reason_REASON_REVOKED:
		return v.named(r), "is revoked"
	case adminv1.Reason_REASON_CRL_EXPIRED:
		return v.named(r), "no revocation list of its issuer is current"
	case adminv1.Reason_REASON_PIN_MISMATCH:
		return 0, "neither its key nor an issuer's key is pinned"
	case adminv1.Reason_REASON_BAD_CERTIFICATE:
		return v.named(r), "is malformed, or its signature is wrong"
	case adminv1.Reason_REASON_EXPIRED, adminv1.Reason_REASON_NOT_YET_VALID:
		// The gateway's clock may differ from this machine's.
		if len(v.faults) == 0 {
			return v.named(r), format.Word(r.GetReason()) + " by the gateway's clock"
		}
	}
	return 0, ""
}

// named returns the certificate whose subject the explanation names first, in
// quotes, or the leaf.
func (v *chainView) named(r *adminv1.ProbeResult) int {
	found, first := 0, len(r.GetExplanation())
	for i, c := range v.certs {
		if at := strings.Index(r.GetExplanation(), `"`+c.GetSubject()+`"`); at >= 0 && at < first {
			found, first = i, at
		}
	}
	return found
}

// write draws the chain from its root down to the leaf.
func (v *chainView) write(w io.Writer, p terminal.Paint, indent string) {
	nodes := slices.Clone(v.path)
	if v.issuer != "" {
		nodes = append(nodes, missing)
	}
	slices.Reverse(nodes)
	for level, i := range nodes {
		branch, below := indent, indent
		if level > 0 {
			branch += strings.Repeat("   ", level-1) + p.Faint("└─ ")
			below += strings.Repeat("   ", level)
		}
		if level < len(nodes)-1 {
			below += p.Faint("│  ")
		} else {
			below += "   "
		}
		v.writeNode(w, p, i, branch, below)
	}
	for _, i := range v.unrelated {
		v.writeNode(w, p, i, indent+p.Caution("also presented: "), indent+"   ")
	}
}

func (v *chainView) writeNode(w io.Writer, p terminal.Paint, i int, branch, below string) {
	if i == missing {
		note := p.Faint("  (not presented)")
		for _, fault := range v.faults[i] {
			note = "  " + p.Bad("✗ "+fault)
		}
		fmt.Fprintf(w, "%s%s%s\n", branch, terminal.Printable(v.issuer), note)
		return
	}
	c := v.certs[i]
	subject := c.GetSubject()
	if subject == "" {
		subject = "(no subject)"
	}
	var facts []string
	if c.GetKeyType() != "" {
		facts = append(facts, c.GetKeyType())
	}
	if c.GetNotAfter() != nil {
		until := "until " + c.GetNotAfter().AsTime().Format("2006-01-02")
		if left := DaysLeft(c, v.now); left != "expired" {
			until += fmt.Sprintf(" (%s days)", left)
		}
		facts = append(facts, until)
	}
	line := branch + p.Strong(terminal.Printable(subject))
	if len(facts) > 0 {
		line += "  " + p.Faint(terminal.Printable(strings.Join(facts, ", ")))
	}
	fmt.Fprintln(w, line)
	if i == 0 && len(c.GetSans()) > 0 {
		fmt.Fprintf(w, "%s%s\n", below, terminal.Printable(terminal.JoinUpTo(c.GetSans(), 8)))
	}
	for _, fault := range v.faults[i] {
		fmt.Fprintf(w, "%s%s\n", below, p.Bad(terminal.Printable("✗ "+fault)))
	}
	for _, warning := range c.GetWarnings() {
		fmt.Fprintf(w, "%s%s\n", below, p.Caution(terminal.Printable("! "+warning)))
	}
}
