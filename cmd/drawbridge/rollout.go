package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// rolloutFlags adds --canaries, --hold and --max-failure-rate to a command that writes. The
// option is nil without them.
func rolloutFlags(cmd *cobra.Command) func() (*adminv1.Rollout, error) {
	canaries := cmd.Flags().String("canaries", "", "run the revision first only on some `gateways`, chosen by labels (zone=a) or as a share (10%); then on all gateways, or roll back if these canaries fail")
	hold := cmd.Flags().Duration("hold", time.Minute, "with --canaries: how long the canaries run the revision before all gateways do (1s to 24h)")
	rate := cmd.Flags().Float64("max-failure-rate", 0.01, "with --canaries: the highest `rate` of failures, from 0 to 1, at which the canaries pass; a higher rate passes if it was as high before the rollout, or is as high at the other gateways")
	return func() (*adminv1.Rollout, error) {
		if !cmd.Flags().Changed("canaries") {
			for _, name := range []string{"hold", "max-failure-rate"} {
				if cmd.Flags().Changed(name) {
					return nil, exit.UsageError("--" + name + " requires --canaries")
				}
			}
			return nil, nil
		}
		out := &adminv1.Rollout{Canaries: &adminv1.Canaries{Gateways: &adminv1.Canaries_Selector{Selector: *canaries}}}
		if share, ok := strings.CutSuffix(*canaries, "%"); ok {
			percent, err := strconv.ParseInt(share, 10, 32)
			if err != nil {
				return nil, exit.UsageError(fmt.Sprintf("--canaries %q: the share must be a whole number from 1%% to 100%%", *canaries))
			}
			out.Canaries.Gateways = &adminv1.Canaries_Percent{Percent: int32(percent)}
		}
		if cmd.Flags().Changed("hold") {
			out.Hold = durationpb.New(*hold)
		}
		if cmd.Flags().Changed("max-failure-rate") {
			out.MaxFailureRate = rate
		}
		return out, nil
	}
}

// showRollout prints how the rollout of a change ended. It returns an error if the rollout is
// still in progress.
func (c *cli) showRollout(f format.Format, r *adminv1.RolloutStatus) error {
	switch {
	case r == nil:
		return nil
	case r.GetState() != adminv1.RolloutState_ROLLOUT_STATE_PROMOTED:
		return &exit.Error{Code: exit.Unavailable, Summary: fmt.Sprintf("the rollout of revision %d is still in progress, because the gateway stops: another gateway ends it", r.GetRevision())}
	case f != format.Table:
		return nil
	}
	_, err := fmt.Fprintf(c.Out, "All gateways may run revision %d: %s.\n", r.GetRevision(), terminal.Printable(r.GetMessage()))
	return err
}
