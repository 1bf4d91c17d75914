package main

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestRolloutFlags(t *testing.T) {
	parse := func(args ...string) (*adminv1.Rollout, error) {
		cmd := &cobra.Command{}
		rollout := rolloutFlags(cmd)
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		return rollout()
	}
	if r, err := parse(); r != nil || err != nil {
		t.Errorf("without flags: %v, %v", r, err)
	}
	r, err := parse("--canaries", "zone=a", "--hold", "5m", "--max-failure-rate", "0")
	if err != nil || r.GetCanaries().GetSelector() != "zone=a" || r.GetHold().AsDuration() != 5*time.Minute || r.MaxFailureRate == nil || r.GetMaxFailureRate() != 0 {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := parse("--canaries", "10%"); err != nil || r.GetCanaries().GetPercent() != 10 || r.GetHold() != nil || r.MaxFailureRate != nil {
		t.Errorf("%v, %v", r, err)
	}
	for _, args := range [][]string{{"--hold", "5m"}, {"--max-failure-rate", "0.1"}, {"--canaries", "some%"}} {
		if r, err := parse(args...); err == nil {
			t.Errorf("%v: %v", args, r)
		}
	}
}

func TestAWriteFailsIfItsRolloutHasNotEnded(t *testing.T) {
	var out bytes.Buffer
	c := &cli{Env: &command.Env{Out: &out}}
	if err := c.showRollout(format.Table, &adminv1.RolloutStatus{Revision: 7, State: adminv1.RolloutState_ROLLOUT_STATE_PROMOTED, Message: "no traffic"}); err != nil || out.String() != "All gateways may run revision 7: no traffic.\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	var failed *exit.Error
	if err := c.showRollout(format.Table, &adminv1.RolloutStatus{Revision: 7, State: adminv1.RolloutState_ROLLOUT_STATE_IN_PROGRESS}); !errors.As(err, &failed) || failed.Code != exit.Unavailable {
		t.Errorf("%v", err)
	}
}
