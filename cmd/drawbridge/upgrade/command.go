// Package upgrade has the upgrade command, and the parts of serve that perform an
// upgrade: a socket in the data directory, the path of the program, and the PID file.
//
// A Server owns its socket. It starts programs only for users with access to the
// data directory: root and the user that runs the gateway.
package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

const long = `Upgrade starts a new process of the gateway, which takes over the listening sockets,
the state, the TLS ticket keys, and what the old process knows about endpoints and
rates. No client is refused. The old process then drains
its connections within its --drain-timeout, and exits.

The new process has the flags and the environment of the old one. Without --binary it
runs the program that the old process was started with, as it is on disk now. Another
program must be in the same directory, or below a --program-root of serve. Until the
new process has taken over, the gateway refuses writes. If the new process fails or
takes longer than the --upgrade-timeout of serve, the old process kills it and
continues, and the command prints the reason.

The command must run on the gateway's machine, as root or as the user that runs the
gateway. SIGUSR2 also starts an upgrade, and the gateway logs the result.`

// socketName is the name of the Server's socket in the data directory.
const socketName = "upgrade.sock"

// A request starts an upgrade. The request and the answer are one line of JSON each.
type request struct {
	Binary string `json:"binary,omitempty"` // an absolute path; "": the path with which the gateway was started
}

type answer struct {
	PID     int    `json:"pid,omitempty"` // the new process
	Version string `json:"version,omitempty"`
	OldPID  int    `json:"old_pid,omitempty"`
	Error   string `json:"error,omitempty"`

	// Again means that another process owns the socket now, so the caller should
	// send the request again.
	Again bool `json:"again,omitempty"`
}

// New returns the upgrade command.
func New(e *command.Env) *cobra.Command {
	var dir, binary string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace the gateway's process without refusing clients",
		Long:  long,
		Example: `  drawbridge upgrade
  drawbridge upgrade --binary /usr/local/bin/drawbridge-1.5 --data-dir /var/lib/drawbridge`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "data-dir", e.DefaultDataDir(), "`directory` of the gateway's state")
	cmd.Flags().StringVar(&binary, "binary", "", "`path` of the program to run (default: the program of the running gateway)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if binary != "" {
			var err error
			if binary, err = filepath.Abs(binary); err != nil {
				return err
			}
		}
		a, err := ask(cmd.Context(), filepath.Join(dir, socketName), request{binary})
		if err != nil {
			return err
		}
		if a.Error != "" {
			return &exit.Error{Code: exit.Failure, Summary: "the upgrade failed, and the old process continues: " + a.Error}
		}
		_, err = fmt.Fprintf(e.Out, "Process %d (version %s) has taken over. Process %d drains its connections.\n", a.PID, a.Version, a.OldPID)
		return err
	}
	return cmd
}

// attempts bounds how often ask retries because it reached a process that has
// just been replaced.
const attempts = 20

func ask(ctx context.Context, socket string, r request) (answer, error) {
	for range attempts {
		a, err := askOnce(ctx, socket, r)
		if err != nil || !a.Again {
			return a, err
		}
		select {
		case <-ctx.Done():
			return answer{}, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return answer{}, errors.New("the gateway was replaced several times during the request: try again later")
}

func askOnce(ctx context.Context, socket string, r request) (answer, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return answer{}, &exit.Error{Code: exit.Unavailable, Summary: fmt.Sprintf("no gateway can be reached: %v; name its --data-dir", err)}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return answer{}, err
	}
	var a answer
	err = json.NewDecoder(conn).Decode(&a)
	if errors.Is(err, io.EOF) {
		return answer{}, &exit.Error{Code: exit.Unavailable, Summary: "the gateway ended before it answered"}
	}
	return a, err
}
