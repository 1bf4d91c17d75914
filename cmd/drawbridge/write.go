package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// writeFlags adds to a command the flags that every write has. The returned function makes
// the options of the write from them.
func writeFlags(cmd *cobra.Command) func() (*adminv1.WriteOptions, error) {
	require := requireProbeFlag(cmd)
	confirmWithin := confirmWithinFlag(cmd)
	waitFor := waitForFlag(cmd)
	rollout := rolloutFlags(cmd)
	dryRun := cmd.Flags().Bool("dry-run", false, "check everything and show what would change, but change nothing")
	comment := cmd.Flags().String("comment", "", "`reason` for the change; stored with the revision")
	return func() (*adminv1.WriteOptions, error) {
		wait, err := waitFor()
		if err != nil {
			return nil, err
		}
		canaries, err := rollout()
		if err != nil {
			return nil, err
		}
		return &adminv1.WriteOptions{
			DryRun:        *dryRun,
			Comment:       *comment,
			RequireProbe:  adminv1.RequireProbe(*require),
			ConfirmWithin: confirmWithin(),
			WaitFor:       wait,
			Rollout:       canaries,
		}, nil
	}
}

// A requireProbe is a flag: how many endpoints must pass a TLS handshake before
// a write.
type requireProbe adminv1.RequireProbe

// String, Set and Type make a requireProbe a flag.
func (r *requireProbe) String() string {
	if *r == 0 {
		return ""
	}
	return format.Lower(adminv1.RequireProbe(*r))
}

func (r *requireProbe) Set(s string) error {
	switch strings.ToLower(s) {
	case "any":
		*r = requireProbe(adminv1.RequireProbe_REQUIRE_PROBE_ANY)
	case "all":
		*r = requireProbe(adminv1.RequireProbe_REQUIRE_PROBE_ALL)
	default:
		return fmt.Errorf("must be any or all")
	}
	return nil
}

func (r *requireProbe) Type() string { return "any|all" }

// requireProbeFlag adds --require-probe to a command that writes.
func requireProbeFlag(cmd *cobra.Command) *requireProbe {
	var r requireProbe
	cmd.Flags().Var(&r, "require-probe", "reject the change unless any or all endpoints of each affected upstream pass a TLS handshake with the new settings")
	if err := cmd.RegisterFlagCompletionFunc("require-probe", cobra.FixedCompletions([]string{"any", "all"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // no such flag: a programming error
	}
	return &r
}
