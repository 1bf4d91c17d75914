package main

import (
	"context"
	"fmt"
	"time"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// showCertificates prints every certificate in use, by days left, and the CAs that have
// not verified a peer for a while.
func (c *cli) showCertificates(ctx context.Context, cl *client.Client, f format.Format, unusedFor time.Duration) error {
	all, err := cl.CertificatesInUse(ctx)
	if err != nil {
		return err
	}
	if f != format.Table {
		return format.WriteMessage(c.Out, f, &adminv1.ListCertificatesInUseResponse{Certificates: all})
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.Err, "No certificates in use.")
		return err
	}
	if err := c.WriteTable(view.InUseTable(all)); err != nil {
		return err
	}
	for _, line := range view.UnneededCAs(all, time.Now(), unusedFor) {
		if _, err := fmt.Fprintln(c.Out, terminal.Printable(line)); err != nil {
			return err
		}
	}
	return nil
}
