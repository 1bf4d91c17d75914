package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func newGet(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get KIND [NAME]",
		Short: "Show resources: all of a kind, one, or the whole configuration",
		Long: `Get shows the desired state: what was put or applied. KIND is one of
` + kindWords() + `, in singular or plural;
"all" (or "config") is the whole configuration of one revision.

With -o yaml or json, "all" leaves out output-only fields (etag, revision, info),
so that apply accepts the output. Private keys are never shown; a certificate that
is applied without its key keeps the stored key.`,
		Example: `  drawbridge get listeners
  drawbridge get upstream payments -o yaml
  drawbridge get upstreams -l team=payments,zone!=b
  drawbridge get all -o yaml > drawbridge.yaml`,
		Args: cobra.RangeArgs(1, 2),
	}
	selector := cmd.Flags().StringP("selector", "l", "", "only resources whose labels match: `key=value,key!=value,key in (a,b)`")
	output := formatFlag(cmd)
	conn := c.connectFlags(cmd.Flags())
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.completeKindAndName(conn, "all")(cmd, args, toComplete)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		word := strings.ToLower(args[0])
		all := word == "all" || word == "config"
		var kind adminv1.Kind
		var err error
		if !all {
			kind, err = parseKind(args[0])
		} else if len(args) > 1 {
			err = usageError(word + " takes no NAME")
		}
		if err == nil && *selector != "" && (all || len(args) > 1) {
			err = usageError("--selector goes with a KIND alone")
		}
		if err != nil {
			return err
		}
		cl, err := conn.dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		switch {
		case all:
			err = c.getAll(cmd.Context(), cl, *output)
		case len(args) == 2:
			err = c.getOne(cmd.Context(), cl, *output, kind, args[1])
		default:
			err = c.getKind(cmd.Context(), cl, *output, kind, *selector)
		}
		return cl.failure(err, noField)
	}
	return cmd
}

func (c *cli) getOne(ctx context.Context, cl *client, f format, kind adminv1.Kind, name string) error {
	r, err := cl.getResource(ctx, kind, name)
	if err != nil {
		return err
	}
	if f == formatJSON {
		doc, err := manifest.DocumentJSON(r)
		if err != nil {
			return err
		}
		return writeJSON(c.out, doc)
	}
	return c.showResources(ctx, cl, f, kind, []*adminv1.Resource{r})
}

func (c *cli) getKind(ctx context.Context, cl *client, f format, kind adminv1.Kind, selector string) error {
	resources, err := cl.listResources(ctx, kind, selector)
	if err != nil {
		return err
	}
	if len(resources) == 0 && f == formatTable {
		_, err := fmt.Fprintf(c.err, "No %ss.\n", kindLabel(kind))
		return err
	}
	return c.showResources(ctx, cl, f, kind, resources)
}

func (c *cli) getAll(ctx context.Context, cl *client, f format) error {
	config, err := cl.getConfig(ctx)
	if err != nil {
		return err
	}
	if f != formatTable {
		desired := make([]*adminv1.Resource, 0, len(config.GetResources()))
		for _, r := range config.GetResources() {
			desired = append(desired, manifest.Desired(r))
		}
		return c.showResources(ctx, cl, f, 0, desired)
	}
	if _, err := fmt.Fprintf(c.out, "Revision %d\n", config.GetRevision()); err != nil {
		return err
	}
	for _, kind := range manifest.Kinds() {
		var some []*adminv1.Resource
		for _, r := range config.GetResources() {
			if manifest.Body(r).ProtoReflect().Descriptor().Name() == kindMessage(kind) {
				some = append(some, r)
			}
		}
		if len(some) == 0 {
			continue
		}
		fmt.Fprintf(c.out, "\n%s\n", strings.ToUpper(kindLabel(kind)+"s"))
		if err := c.showResources(ctx, cl, f, kind, some); err != nil {
			return err
		}
	}
	return nil
}

// showResources writes resources. For a table they must all be of one kind.
func (c *cli) showResources(ctx context.Context, cl *client, f format, kind adminv1.Kind, resources []*adminv1.Resource) error {
	switch f {
	case formatYAML:
		return manifest.WriteYAML(c.out, resources)
	case formatJSON:
		docs := make([]json.RawMessage, 0, len(resources))
		for _, r := range resources {
			doc, err := manifest.DocumentJSON(r)
			if err != nil {
				return err
			}
			docs = append(docs, doc)
		}
		return writeJSON(c.out, docs)
	}
	t, err := resourceTable(ctx, cl, kind, resources)
	if err != nil {
		return err
	}
	return c.table(t)
}
