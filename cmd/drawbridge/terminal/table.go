package terminal

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"
)

// A Table is written in aligned columns.
type Table struct {
	Header []string
	Rows   [][]string
}

// Add adds a row, with a cell for each column. An empty cell is written as "-".
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// Write writes the rows with columns as wide as their widest cell. It pads before it
// adds colors, because color codes have no width on a terminal.
func (t *Table) Write(w io.Writer, p Paint) error {
	const gap = 3
	all := append([][]string{t.Header}, t.Rows...)
	widths := make([]int, len(t.Header))
	for _, row := range all {
		for i, cell := range row {
			if cell = Printable(cell); cell == "" {
				cell = "-"
			}
			row[i] = cell
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out bytes.Buffer
	for n, row := range all {
		for i, cell := range row {
			space := widths[i] + gap - utf8.RuneCountInString(cell)
			if n > 0 {
				cell = p.cell(t.Header[i], cell)
			}
			out.WriteString(cell)
			if i < len(row)-1 {
				out.WriteString(strings.Repeat(" ", space))
			}
		}
		out.WriteByte('\n')
	}
	_, err := w.Write(out.Bytes())
	return err
}
