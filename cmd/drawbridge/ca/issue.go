package ca

import (
	"fmt"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
)

func newIssue(env *command.Env) *cobra.Command {
	var (
		options               pki.LeafOptions
		server, client, force bool
		outDir                string
		life                  lifetime
	)
	cmd := &cobra.Command{
		Use:   "issue NAME",
		Short: "Issue a certificate for a server, a client or both",
		Long: `Issue makes a key and a certificate for it, NAME.pem and NAME-key.pem, with NAME
as its common name. Verifiers look only at the names given by --dns, --ip and
--uri: a server needs at least one of them.

Without --server or --client, a certificate with a DNS name or an IP address is for
a server, and one without is for a client. With both flags it is for both.`,
		Example: `  drawbridge pki issue web --dns web.internal --dns "*.web.internal" --ip 10.0.0.7
  drawbridge pki issue gateway --client --lifetime 90d
  drawbridge pki issue node-1 --server --client --dns node-1.internal --uri spiffe://corp/node-1`,
		Args: cobra.ExactArgs(1),
	}
	dir := dirFlag(cmd.Flags())
	cmd.Flags().StringSliceVar(&options.DNSNames, "dns", nil, "DNS `name`; may be repeated")
	cmd.Flags().IPSliceVar(&options.IPs, "ip", nil, "IP `address`; may be repeated")
	cmd.Flags().Lookup("ip").DefValue = "" // otherwise help shows []
	cmd.Flags().StringSliceVar(&options.URIs, "uri", nil, "`URI`; may be repeated")
	cmd.Flags().BoolVar(&server, "server", false, "issue a server certificate")
	cmd.Flags().BoolVar(&client, "client", false, "issue a client certificate")
	cmd.Flags().Var(&life, "lifetime", "how long it is valid, such as 8760h or 90d (default 365d, or as long as the CA)")
	cmd.Flags().StringVar(&outDir, "out-dir", "", "`directory` to write to (default: that of the CA)")
	cmd.Flags().BoolVar(&force, "force", false, "replace existing files")
	key := keyTypeFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		ca, err := pki.Load(*dir)
		if err != nil {
			return err
		}
		options.CommonName = args[0]
		options.Usage = usage(server, client, options.DNSNames, options.IPs)
		options.Key = pki.KeyType(*key)
		options.NotAfter = life.until()
		if outDir == "" {
			outDir = *dir
		}
		var entry *pki.Entry
		err = inStaging(outDir, force, func(staging string) (err error) {
			entry, err = ca.IssueTo(staging, args[0], options)
			return err
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(env.Out, "Issued %s and %s for a %s, valid until %s.\n",
			filepath.Join(outDir, filepath.Base(entry.CertPath)), filepath.Base(entry.KeyPath),
			usageWords(options.Usage), entry.Chain[0].NotAfter.Format("2006-01-02"))
		return nil
	}
	return cmd
}

func usage(server, client bool, dns []string, ips []net.IP) pki.Usage {
	switch {
	case server && client:
		return pki.Both
	case server:
		return pki.Server
	case client:
		return pki.Client
	case len(dns)+len(ips) > 0:
		return pki.Server
	}
	return pki.Client
}

func usageWords(u pki.Usage) string {
	if u == pki.Both {
		return "server and client"
	}
	return u.String()
}
