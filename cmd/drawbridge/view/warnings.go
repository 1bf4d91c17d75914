package view

import (
	"fmt"
	"io"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// WriteWarnings writes warnings, one per line. name translates the path of a field for
// the user; nil leaves paths as they are.
func WriteWarnings(w io.Writer, warnings []*adminv1.Warning, name func(path string) string) {
	for _, warning := range warnings {
		field := warning.GetField()
		if field != "" && name != nil {
			field = name(field)
		}
		if field != "" {
			field += ": "
		}
		fmt.Fprintf(w, "Warning: %s\n", terminal.Printable(field+warning.GetMessage()))
	}
}
