package growth

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bench/chart"
)

// A Table holds figures by row and size.
type Table struct {
	over    string // the name of the sizes
	sizes   []int
	rows    []string // the rows in order
	figures map[string]map[int]float64
}

// NewTable returns an empty table over sizes, which ascend.
func NewTable(over string, sizes []int) *Table {
	return &Table{over: over, sizes: sizes, figures: map[string]map[int]float64{}}
}

// Add sets a figure. Rows keep the order of their first figures.
func (t *Table) Add(row string, size int, figure float64) {
	if t.figures[row] == nil {
		t.figures[row] = map[int]float64{}
		t.rows = append(t.rows, row)
	}
	t.figures[row][size] = figure
}

// Write writes the table. Its last columns are the slope over all sizes, and the slope
// between the last two.
func (t *Table) Write(w io.Writer) error {
	var out strings.Builder
	fmt.Fprintf(&out, "%-52s", t.over)
	for _, n := range t.sizes {
		fmt.Fprintf(&out, " %10d", n)
	}
	out.WriteString("      slope  last step\n")
	for _, row := range t.rows {
		fmt.Fprintf(&out, "%-52s", row)
		for _, n := range t.sizes {
			if figure, ok := t.figures[row][n]; ok {
				fmt.Fprintf(&out, " %10.2f", figure)
			} else {
				fmt.Fprintf(&out, " %10s", "-")
			}
		}
		last := t.sizes[max(0, len(t.sizes)-2):]
		fmt.Fprintf(&out, " %10.2f %10.2f\n", slope(t.sizes, t.figures[row]), slope(last, t.figures[row]))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// Draw draws rows on logarithmic axes, with their slopes.
func (t *Table) Draw(path, title string, rows ...string) error {
	var x []float64
	for _, n := range t.sizes {
		x = append(x, float64(n))
	}
	var series []chart.Series
	for i, row := range rows {
		s := chart.Series{Name: fmt.Sprintf("%s: slope %.2f", row, slope(t.sizes, t.figures[row])), Color: i}
		for _, n := range t.sizes {
			figure, ok := t.figures[row][n]
			if !ok {
				figure = math.NaN()
			}
			s.Values = append(s.Values, figure)
		}
		if !slices.ContainsFunc(s.Values, func(v float64) bool { return v > 0 }) {
			continue // a logarithmic axis shows none of them
		}
		series = append(series, s)
	}
	return chart.Lines(path, title, t.over, "", true, x, series)
}

// slope returns the exponent of growth: the slope of the line that best fits the logarithms
// of sizes and figures. It ignores figures that are not positive.
func slope(sizes []int, figures map[int]float64) float64 {
	var n, sx, sy, sxx, sxy float64
	for _, size := range sizes {
		if figures[size] <= 0 {
			continue
		}
		x, y := math.Log(float64(size)), math.Log(figures[size])
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	if n < 2 {
		return 0
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}
