package main

import (
	"io"
	"os"
	"strings"
)

// A paint colors text for a terminal. The zero value adds no color.
type paint bool

// paint returns a paint for w: it colors if w is a terminal, unless the environment
// disables color (no-color.org).
func (c *cli) paint(w io.Writer) paint {
	if v, _ := c.lookupEnv("NO_COLOR"); v != "" {
		return false
	}
	if term, _ := c.lookupEnv("TERM"); term == "dumb" {
		return false
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (p paint) good(text string) string    { return p.sgr("32", text) }
func (p paint) bad(text string) string     { return p.sgr("31", text) }
func (p paint) caution(text string) string { return p.sgr("33", text) }
func (p paint) faint(text string) string   { return p.sgr("2", text) }
func (p paint) strong(text string) string  { return p.sgr("1", text) }

// sgr selects a graphic rendition (ECMA-48 section 8.3.117) for text.
func (p paint) sgr(code, text string) string {
	if !p || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// cell colors a cell of a table according to its column.
func (p paint) cell(header, cell string) string {
	switch header {
	case "STATE", "HEALTH":
		switch {
		case strings.Contains(cell, "down"):
			return p.bad(cell)
		case strings.HasPrefix(cell, "up"), strings.Contains(cell, " up"):
			return p.good(cell)
		}
	case "DAYS LEFT":
		switch {
		case cell == "expired":
			return p.bad(cell)
		case len(cell) == 1 && cell != "-", len(cell) == 2 && cell < "30":
			return p.caution(cell)
		}
	case "REASON", "LAST FAILURE", "FINDINGS":
		if cell != "-" {
			return p.caution(cell)
		}
	}
	return cell
}
