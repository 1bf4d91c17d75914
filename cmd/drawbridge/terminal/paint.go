package terminal

import (
	"os"
	"strings"
)

// A Paint colors text for a terminal. The zero value adds no color.
type Paint bool

// Good, Bad, Caution, Faint and Strong color text by its meaning. They do not color "".
func (p Paint) Good(text string) string { return p.sgr("32", text) }

func (p Paint) Bad(text string) string { return p.sgr("31", text) }

func (p Paint) Caution(text string) string { return p.sgr("33", text) }

func (p Paint) Faint(text string) string { return p.sgr("2", text) }

func (p Paint) Strong(text string) string { return p.sgr("1", text) }

// sgr returns text with a graphic rendition (ECMA-48 section 8.3.117).
func (p Paint) sgr(code, text string) string {
	if !p || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// cell colors a cell of a table according to its column.
func (p Paint) cell(header, cell string) string {
	switch header {
	case "STATE", "HEALTH":
		switch {
		case strings.Contains(cell, "down"):
			return p.Bad(cell)
		case strings.HasPrefix(cell, "up"), strings.Contains(cell, " up"):
			return p.Good(cell)
		}
	case "DAYS LEFT":
		switch {
		case cell == "expired":
			return p.Bad(cell)
		case len(cell) == 1 && cell != "-", len(cell) == 2 && cell < "30":
			return p.Caution(cell)
		}
	case "REASON", "LAST FAILURE", "FINDINGS":
		if cell != "-" {
			return p.Caution(cell)
		}
	}
	return cell
}

// IsTerminal reports whether a stream is a terminal. The null device, which is often
// the input and output of unattended programs, is also a character device but not a
// terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
