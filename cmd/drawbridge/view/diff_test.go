package view

import (
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// On a terminal, removed lines are red and added lines are green, as in kubectl and git.
func TestADiffIsColoredByKindOfChange(t *testing.T) {
	changes := []*adminv1.ResourceChange{
		{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "payments", Action: adminv1.ChangeAction_CHANGE_ACTION_UPDATED, FieldCount: 3, Fields: []*adminv1.FieldChange{
			{Path: "endpoints[0].address", Before: `"10.0.0.7:443"`, After: `"10.0.0.8:443"`},
			{Path: "labels[\x1b[2J]", After: "\"\x1b[2J\""},
		}},
		{Kind: adminv1.Kind_KIND_CERTIFICATE, Name: "client", Action: adminv1.ChangeAction_CHANGE_ACTION_UPDATED},
		{Kind: adminv1.Kind_KIND_ROUTE, Name: "new", Action: adminv1.ChangeAction_CHANGE_ACTION_CREATED},
		{Kind: adminv1.Kind_KIND_ROUTE, Name: "old", Action: adminv1.ChangeAction_CHANGE_ACTION_DELETED},
	}
	const want = "<1>updated Upstream payments<0>\n" +
		"  endpoints[0].address\n" +
		"<31>  - \"10.0.0.7:443\"<0>\n" +
		"<32>  + \"10.0.0.8:443\"<0>\n" +
		"  labels[\ufffd[2J]\n" +
		"<32>  + \"\ufffd[2J\"<0>\n" +
		"  <2>and 1 more field<0>\n" +
		"<1>updated Certificate client<0>\n" +
		"  <2>the settings are the same; its files have other content<0>\n" +
		"<32>created Route new<0>\n" +
		"<31>deleted Route old<0>\n"
	var colored, plain strings.Builder
	if err := WriteDiff(&colored, true, changes); err != nil {
		t.Fatal(err)
	}
	if got := strings.NewReplacer("\x1b[0m", "<0>", "\x1b[1m", "<1>", "\x1b[2m", "<2>", "\x1b[31m", "<31>", "\x1b[32m", "<32>").Replace(colored.String()); got != want {
		t.Errorf("in color:\n%s\nwant\n%s", got, want)
	}
	if err := WriteDiff(&plain, terminal.Paint(false), changes); err != nil {
		t.Fatal(err)
	}
	if got := strings.NewReplacer("<0>", "", "<1>", "", "<2>", "", "<31>", "", "<32>", "").Replace(want); plain.String() != got {
		t.Errorf("without color:\n%s\nwant\n%s", plain.String(), got)
	}
}
