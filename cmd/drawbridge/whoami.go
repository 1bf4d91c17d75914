package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const whoamiLong = `Whoami shows who you are to the gateway: the name in its log and revisions, your
role, and the subjects by which a policy (serve --admin-policy) can give you one.

A caller without a role gets an error that lists the subjects.`

func newWhoami(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Show who you are to the gateway, and your role",
		Long:  whoamiLong,
		Example: `  drawbridge whoami
  drawbridge whoami --admin gw.example:9443 --admin-tls-cert alice.pem --admin-tls-key alice-key.pem`,
		Args: cobra.NoArgs,
	}
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		st, err := cl.Status.GetStatus(cmd.Context(), &adminv1.GetStatusRequest{PageSize: 1})
		if err != nil {
			return cl.Failure(err, nil)
		}
		if *output != format.Table {
			return format.WriteWords(c.Out, *output, st.GetCaller())
		}
		return writeCaller(c.Out, st.GetCaller())
	}
	return cmd
}

func writeCaller(w io.Writer, caller *adminv1.Caller) error {
	var rights []string
	for _, r := range caller.GetRights() {
		rights = append(rights, format.Word(r))
	}
	text := fmt.Sprintf("%s, %s (%s)\n", terminal.Printable(caller.GetPrincipal()), format.Lower(caller.GetRole()), strings.Join(rights, ", "))
	for _, s := range caller.GetSubjects() {
		text += "  " + terminal.Printable(s) + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
