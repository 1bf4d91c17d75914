package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// WriteDiff writes changes for people, each field with its values before and after.
func WriteDiff(w io.Writer, p terminal.Paint, changes []*adminv1.ResourceChange) error {
	var out bytes.Buffer
	for _, ch := range changes {
		head := strings.ToLower(format.Word(ch.GetAction())) + " " + manifest.KindName(ch.GetKind()) + " " + terminal.Printable(ch.GetName())
		switch ch.GetAction() {
		case adminv1.ChangeAction_CHANGE_ACTION_CREATED:
			head = p.Good(head)
		case adminv1.ChangeAction_CHANGE_ACTION_DELETED:
			head = p.Bad(head)
		default:
			head = p.Strong(head)
		}
		fmt.Fprintln(&out, head)
		if len(ch.GetFields()) == 0 && ch.GetAction() == adminv1.ChangeAction_CHANGE_ACTION_UPDATED {
			fmt.Fprintln(&out, "  "+p.Faint("the settings are the same; its files have other content"))
		}
		for _, f := range ch.GetFields() {
			fmt.Fprintln(&out, "  "+terminal.Printable(f.GetPath()))
			if f.GetBefore() != "" {
				fmt.Fprintln(&out, p.Bad("  - "+terminal.Printable(f.GetBefore())))
			}
			if f.GetAfter() != "" {
				fmt.Fprintln(&out, p.Good("  + "+terminal.Printable(f.GetAfter())))
			}
		}
		if n := int(ch.GetFieldCount()) - len(ch.GetFields()); n > 0 && len(ch.GetFields()) > 0 {
			fmt.Fprintln(&out, "  "+p.Faint("and "+terminal.Count(n, "more field")))
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}
