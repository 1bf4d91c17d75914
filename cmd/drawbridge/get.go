package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func newGet(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get KIND [NAME]",
		Short: "Show resources: all of a kind, one, or the whole configuration",
		Long: `Get shows the desired state: the configuration that was put or applied. KIND is one of
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
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return conn.CompleteKindAndName("all")(cmd, args, toComplete)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		word := strings.ToLower(args[0])
		all := word == "all" || word == "config"
		var kind adminv1.Kind
		var err error
		if !all {
			kind, err = parseKind(args[0])
		} else if len(args) > 1 {
			err = exit.UsageError(word + " takes no NAME")
		}
		if err == nil && *selector != "" && (all || len(args) > 1) {
			err = exit.UsageError("--selector requires a KIND, and no NAME")
		}
		if err != nil {
			return err
		}
		cl, err := conn.Dial()
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
		return cl.Failure(err, exit.NoField)
	}
	return cmd
}

func (c *cli) getOne(ctx context.Context, cl *client.Client, f format.Format, kind adminv1.Kind, name string) error {
	r, err := cl.GetResource(ctx, kind, name)
	if err != nil {
		return err
	}
	if f == format.JSON {
		doc, err := manifest.DocumentJSON(r)
		if err != nil {
			return err
		}
		return format.WriteJSON(c.Out, doc)
	}
	return c.showResources(ctx, cl, f, kind, []*adminv1.Resource{r})
}

func (c *cli) getKind(ctx context.Context, cl *client.Client, f format.Format, kind adminv1.Kind, selector string) error {
	resources, err := cl.ListResources(ctx, kind, selector)
	if err != nil {
		return err
	}
	if len(resources) == 0 && f == format.Table {
		_, err := fmt.Fprintf(c.Err, "No %ss.\n", view.KindLabel(kind))
		return err
	}
	return c.showResources(ctx, cl, f, kind, resources)
}

func (c *cli) getAll(ctx context.Context, cl *client.Client, f format.Format) error {
	config, err := cl.WholeConfig(ctx)
	if err != nil {
		return err
	}
	if f != format.Table {
		desired := make([]*adminv1.Resource, 0, len(config.GetResources()))
		for _, r := range config.GetResources() {
			desired = append(desired, manifest.Desired(r))
		}
		return c.showResources(ctx, cl, f, 0, desired)
	}
	if _, err := fmt.Fprintf(c.Out, "Revision %d\n", config.GetRevision()); err != nil {
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
		fmt.Fprintf(c.Out, "\n%s\n", strings.ToUpper(view.KindLabel(kind)+"s"))
		if err := c.showResources(ctx, cl, f, kind, some); err != nil {
			return err
		}
	}
	return nil
}

// showResources prints resources. For a table they must all be of one kind.
func (c *cli) showResources(ctx context.Context, cl *client.Client, f format.Format, kind adminv1.Kind, resources []*adminv1.Resource) error {
	switch f {
	case format.YAML:
		return manifest.WriteYAML(c.Out, resources)
	case format.JSON:
		docs := make([]json.RawMessage, 0, len(resources))
		for _, r := range resources {
			doc, err := manifest.DocumentJSON(r)
			if err != nil {
				return err
			}
			docs = append(docs, doc)
		}
		return format.WriteJSON(c.Out, docs)
	}
	t, err := resourceTable(ctx, cl, kind, resources)
	if err != nil {
		return err
	}
	return c.WriteTable(t)
}

// resourceTable returns the table of `get` for a kind: the configuration and its status.
func resourceTable(ctx context.Context, cl *client.Client, kind adminv1.Kind, resources []*adminv1.Resource) (*terminal.Table, error) {
	switch kind {
	case adminv1.Kind_KIND_LISTENER:
		st, err := cl.WholeStatus(ctx)
		if err != nil {
			return nil, err
		}
		return view.ListenerTable(resources, st.GetListeners()), nil
	case adminv1.Kind_KIND_UPSTREAM:
		st, err := cl.UpstreamStatuses(ctx)
		if err != nil {
			return nil, err
		}
		return view.UpstreamTable(resources, st), nil
	case adminv1.Kind_KIND_ROUTE:
		return view.RouteTable(resources), nil
	case adminv1.Kind_KIND_CERTIFICATE:
		return view.CertificateTable(resources, time.Now()), nil
	}
	return view.TrustBundleTable(resources, time.Now()), nil
}

func kindMessage(kind adminv1.Kind) protoreflect.Name {
	return protoreflect.Name(manifest.KindName(kind))
}

// parseKind is manifest.ParseKind for an argument of the command line.
func parseKind(arg string) (adminv1.Kind, error) {
	kind, err := manifest.ParseKind(arg)
	if err != nil {
		return 0, exit.UsageError(err.Error())
	}
	return kind, nil
}
