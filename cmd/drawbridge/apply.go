package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/configfile"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const applyLong = `Apply creates and changes the resources in the files: all of them in one revision,
or none. Resources that the files do not name stay unchanged, unless --prune is
given.

With --prune or --dry-run, apply first shows the connections that the change ends:
those that are "closed" at once, and those that are "drained" until their requests end.

With --require-probe the gateway first makes a TLS handshake with the endpoints of
every affected upstream, with the new settings. Unless any (or all) endpoints of
each upstream pass, apply changes nothing and shows the probe results.

With --confirm-within the gateway rolls back to the previous configuration, unless you
run "confirm" in time. Use it for a change that may cut you off. Until then the gateway
refuses other changes. If it stops or crashes, it rolls back at the next start.

A file is YAML or JSON: documents, each with a kind and the resource's fields.
Unknown fields are rejected. Relative paths in a file start at that file.

  kind: Upstream
  name: payments
  endpoints: [{address: "payments.internal:443"}]
  tls: {certificate: client, trustBundles: [corp]}
  ---
  kind: Listener
  name: payments
  address: 127.0.0.1:8080
  protocol: HTTP
  upstream: payments

Key material has one of three forms. No command shows inline keys.
"files" are on the gateway's machine, below its --file-root directories, and are
watched. A PKCS#12 archive is base64 in "pkcs12", or a file like any other:

  kind: Certificate
  name: client
  files: {certificatePath: client.p12, passphrasePath: client.pass}
  ---
  kind: Certificate
  name: front
  pkcs12: {data: MIIKXAIBAzCC..., passphrase: "..."}
  ---
  kind: TrustBundle
  name: corp
  file: corp-ca.pem
  crls: [{file: corp.crl}]`

func newApply(c *cli) *cobra.Command {
	var (
		files         []string
		prune         bool
		pruneSelector string
		createOnly    bool
	)
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create and change what files describe, all or nothing",
		Long:  applyLong,
		Example: `  drawbridge apply -f drawbridge.yaml
  drawbridge apply -f base.yaml -f site/ --prune --dry-run
  drawbridge apply -f payments.yaml --require-probe any
  drawbridge apply -f payments.yaml --confirm-within 2m
  drawbridge apply -f payments.yaml --canaries zone=a --hold 10m
  drawbridge get all -o yaml | sed s/8080/9090/ | drawbridge apply -f -`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "`FILE` to apply: a file, a directory (its *.yaml, *.yml, *.json) or - for standard input; may be repeated")
	cmd.Flags().BoolVar(&prune, "prune", false, "also delete every resource that the files do not name")
	cmd.Flags().StringVar(&pruneSelector, "prune-selector", "", "with --prune: only resources whose labels match this `selector`, such as team=payments")
	cmd.Flags().BoolVar(&createOnly, "create-only", false, "fail instead of changing an existing resource")
	writeOptions := writeFlags(cmd)
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(files) == 0 {
			return exit.UsageError("nothing to apply: name a file with -f")
		}
		m, err := manifest.Load(c.In, files...)
		if err != nil {
			return err
		}
		if pruneSelector != "" && !prune {
			return exit.UsageError("--prune-selector requires --prune")
		}
		if prune {
			if err := configfile.NotEmpty(m, strings.Join(files, ", ")); err != nil {
				return err
			}
		}
		options, err := writeOptions()
		if err != nil {
			return err
		}
		options.CreateOnly = createOnly
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		req := &adminv1.ApplyRequest{
			Resources: m.Resources(),
			Options:   options,
		}
		if prune {
			req.Prune = &adminv1.Prune{Kinds: manifest.Kinds(), LabelSelector: pruneSelector}
		}
		change, err := c.applyWithImpact(cmd.Context(), cl, *output, req)
		if err != nil {
			return cl.Failure(err, exit.InManifest(m))
		}
		if err := c.showChange(*output, change, options.GetDryRun(), exit.InManifest(m)); err != nil {
			return err
		}
		return c.awaitWritten(cmd.Context(), cl, *output, options.GetWaitFor(), change)
	}
	return cmd
}

// showChange prints the result of a write, with its warnings on standard error.
func (c *cli) showChange(f format.Format, change *adminv1.Change, dryRun bool, name exit.FieldNamer) error {
	view.WriteWarnings(c.Err, change.GetWarnings(), name)
	if f != format.Table {
		return format.WriteMessage(c.Out, f, change)
	}
	t := &terminal.Table{Header: []string{"ACTION", "KIND", "NAME"}}
	unchanged := 0
	for _, ch := range change.GetChanges() {
		if ch.GetAction() == adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED {
			unchanged++
			continue
		}
		t.Add(format.Lower(ch.GetAction()), manifest.KindName(ch.GetKind()), ch.GetName())
	}
	if len(t.Rows) == 0 {
		_, err := fmt.Fprintf(c.Out, "Nothing to change: revision %d is live and already contains all of it.\n", change.GetRevision())
		return err
	}
	if err := c.WriteTable(t); err != nil {
		return err
	}
	if dryRun {
		if err := c.showImpact(change.GetImpact()); err != nil {
			return err
		}
	}
	also := ""
	if unchanged > 0 {
		also = fmt.Sprintf(" (%d unchanged)", unchanged)
	}
	text := "Revision %d is live%s.\n"
	if dryRun {
		text = "Dry run: revision %d stays%s.\n"
	}
	_, err := fmt.Fprintf(c.Out, text, change.GetRevision(), also)
	return err
}
