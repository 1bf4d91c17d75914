package client

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// CompleteKindAndName completes KIND, and completes NAME from the running gateway.
// extra are further valid words for KIND.
func (o *Connector) CompleteKindAndName(extra ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			words := slices.Clone(extra)
			for _, name := range manifest.KindNames() {
				words = append(words, strings.ToLower(name))
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		}
		kind, err := manifest.ParseKind(args[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return o.Complete(cmd, func(cl *Client) ([]string, error) { return cl.names(cmd.Context(), kind) })
	}
}

// CompleteName completes the only argument: the name of a resource.
func (o *Connector) CompleteName(kind adminv1.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return o.Complete(cmd, func(cl *Client) ([]string, error) { return cl.names(cmd.Context(), kind) })
	}
}

// CompleteFlag completes a flag of cmd with words for the upstream in the command's
// only argument.
func (o *Connector) CompleteFlag(cmd *cobra.Command, flag string, words func(*adminv1.UpstreamStatus) []string) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return o.Complete(cmd, func(cl *Client) ([]string, error) {
			u, err := cl.UpstreamStatus(cmd.Context(), args[0])
			return words(u), err
		})
	})
	if err != nil {
		panic(err) // no such flag: a programming error
	}
}

// Complete returns completions from the running gateway.
func (o *Connector) Complete(cmd *cobra.Command, words func(*Client) ([]string, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	if o.env.ReadFlags(cmd.Flags()) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	cl, err := o.Dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer cl.Close()
	found, err := words(cl)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
