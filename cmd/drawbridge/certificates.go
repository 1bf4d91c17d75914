package main

import (
	"context"
	"fmt"
	"strings"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// showCertificates writes every certificate in use, by days left.
func (c *cli) showCertificates(ctx context.Context, cl *client, f format) error {
	answer, err := cl.status.ListCertificates(ctx, &adminv1.StatusServiceListCertificatesRequest{})
	if err != nil {
		return err
	}
	if f != formatTable {
		return writeMessage(c.out, f, answer)
	}
	if len(answer.GetCertificates()) == 0 {
		_, err := fmt.Fprintln(c.err, "No certificates in use.")
		return err
	}
	return c.table(inUseTable(answer.GetCertificates()))
}

func inUseTable(certificates []*adminv1.CertificateInUse) *table {
	t := &table{header: []string{"DAYS LEFT", "UNTIL", "USE", "NAME", "SUBJECT", "USED BY", "SHA-256", "FINDINGS"}}
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
			subject = few(info.GetSans())
		}
		t.add(left, until, lower(crt.GetUse()), name, subject, strings.Join(crt.GetUsedBy(), ", "), shortFingerprint(info), findings(info))
	}
	return t
}
