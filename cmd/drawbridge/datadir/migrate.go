package datadir

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	fleetflags "github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/fleet"
	"github.com/drawbridge-gateway/drawbridge/gateway/fleet"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
)

const migrateLong = `Migrate moves the configuration of a stopped gateway, with its history and keys, to etcd
(--from bolt --to etcd), or that of a fleet to the data directory of one gateway (--from
etcd --to bolt). It reads back what it wrote and compares.

To etcd: the prefix must hold no other configuration. The data directory becomes the
gateway's copy: start the gateway with --store etcd and the same flags. Seal the data
directory first ("store seal"): a fleet needs a seal key.

To bolt: the data directory must be empty, or that of a gateway of the fleet. The fleet
itself does not change.

If migrate is interrupted, run it again: the source is unchanged until the destination is
complete.`

func newMigrate(env *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate --from bolt --to etcd",
		Short: "Move the configuration of a stopped gateway to etcd, or back",
		Long:  migrateLong,
		Example: `  drawbridge store migrate --from bolt --to etcd --seal-key-file /etc/drawbridge/seal.key --etcd-endpoints https://etcd-1:2379
  drawbridge store migrate --from etcd --to bolt --data-dir /var/lib/drawbridge --seal-key-file /etc/drawbridge/seal.key --etcd-endpoints https://etcd-1:2379`,
		Args: cobra.NoArgs,
	}
	from := cmd.Flags().String("from", "", "the `store` to move from: bolt or etcd")
	to := cmd.Flags().String("to", "", "the `store` to move to: etcd or bolt")
	history := cmd.Flags().Int("revision-history", 100, "`number` of revisions to move, with what is needed to roll back to them (1 to 1000)")
	dir, keyFile := dirFlag(env, cmd.Flags()), KeyFlag(cmd.Flags())
	var at fleetflags.Flags
	at.AddEtcd(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *from+" "+*to != "bolt etcd" && *from+" "+*to != "etcd bolt" {
			return exit.UsageError("--from bolt --to etcd, or --from etcd --to bolt, must be given")
		}
		if *history < 1 || *history > etcd.MaxHistory {
			return exit.UsageError(fmt.Sprintf("--revision-history %d: must be from 1 to %d", *history, etcd.MaxHistory))
		}
		options, err := at.EtcdOptions()
		if err != nil {
			return err
		}
		if options.Key, err = requiredKey(env, *keyFile); err != nil {
			return err
		}
		options.History = *history
		return migrate(cmd.Context(), env, *dir, *to == "etcd", options)
	}
	return cmd
}

// migrate moves the configuration between a data directory and etcd.
func migrate(ctx context.Context, env *command.Env, dir string, toEtcd bool, o etcd.Options) (err error) {
	if _, err := os.Stat(dir); toEtcd && err != nil { // bolt.Open would create the directory
		return failure(dir, err)
	}
	local, err := bolt.Open(dir, bolt.Options{History: o.History, Key: o.Key})
	if err != nil {
		return failure(dir, err)
	}
	defer func() {
		if closing := local.Close(); err == nil {
			err = closing
		}
	}()
	remote, err := etcd.Open(o)
	if err != nil {
		return err
	}
	defer remote.Close()
	move, text := fleet.ToEtcd, "Revision %d is in etcd: %d resources, %d stored revisions. Start the gateway with --store etcd.\n"
	if !toEtcd {
		move, text = fleet.FromEtcd, "Revision %d is in "+dir+": %d resources, %d stored revisions. Start the gateway without --store etcd.\n"
	}
	moved, err := move(ctx, local, remote)
	if err != nil {
		return err
	}
	if moved.Done {
		fmt.Fprintln(env.Out, "An earlier run has moved everything.")
	}
	_, err = fmt.Fprintf(env.Out, text, moved.Revision, moved.Resources, moved.Records)
	return err
}
