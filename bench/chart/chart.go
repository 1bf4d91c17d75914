// Package chart draws the figures of a report as SVG.
//
// The caller owns the values, which no function modifies.
package chart

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A Series is drawn in one color.
type Series struct {
	Name string
	// Color is the index of a color. A proxy has the same color in every chart.
	Color int
	// Values has one value for each group of bars, or for each X of a line. NaN
	// means no value.
	Values []float64
	// Low and High are the ends of an error bar; nil draws none.
	Low, High []float64
}

// colors are distinguishable with most color vision deficiencies, and in print
// (Okabe and Ito).
var colors = []color.Color{
	color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff},
	color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff},
	color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff},
	color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff},
	color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff},
	color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff},
}

func seriesColor(i int) color.Color { return colors[i%len(colors)] }

const (
	height   = 9 * vg.Centimeter
	barWidth = 0.28 * vg.Centimeter
)

func newPlot(title, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text = title
	p.Y.Label.Text = y
	p.Legend.Top = true
	p.Legend.TextStyle.Font.Size = vg.Points(9)
	p.Legend.ThumbnailWidth = 0.4 * vg.Centimeter
	return p
}

// Bars draws groups of bars, one of each series in each group, and a line at
// the height of mark if it is not 0.
func Bars(path, title, y string, groups []string, series []Series, mark float64) error {
	p := newPlot(title, y)
	p.Y.Min = 0
	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	p.Add(grid)
	for i, s := range series {
		// Missing bars have no height.
		values := make(plotter.Values, len(s.Values))
		for j, v := range s.Values {
			if !math.IsNaN(v) {
				values[j] = v
			}
		}
		bars, err := plotter.NewBarChart(values, barWidth)
		if err != nil {
			return err
		}
		bars.LineStyle.Width = 0
		bars.Color = seriesColor(s.Color)
		bars.Offset = barWidth * vg.Length(2*i-len(series)+1) / 2
		p.Add(bars)
		p.Legend.Add(s.Name, bars)
		if s.Low != nil {
			p.Add(&whiskers{series: s, offset: bars.Offset})
		}
		for j, v := range s.Values {
			top := v
			if s.High != nil {
				top = s.High[j]
			}
			if !math.IsNaN(top) {
				p.Y.Max = max(p.Y.Max, 1.25*top) // leave room for the legend
			}
		}
	}
	if mark != 0 {
		line := plotter.NewFunction(func(float64) float64 { return mark })
		line.Color, line.Width, line.Dashes = color.Gray{Y: 0x40}, vg.Points(0.8), []vg.Length{vg.Points(3), vg.Points(2)}
		p.Add(line)
	}
	p.NominalX(groups...)
	p.X.Tick.Label.Rotation = math.Pi / 8
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = draw.XRight, draw.YTop
	p.X.Min, p.X.Max = -0.6, float64(len(groups))-0.4
	width := barWidth*vg.Length(len(groups)*(len(series)+2)) + 4*vg.Centimeter
	return save(p, max(width, 12*vg.Centimeter), path)
}

// Lines draws a line for each series over x on a logarithmic axis. The y axis
// is logarithmic too if logY is set; otherwise it begins at 0.
func Lines(path, title, xLabel, y string, logY bool, x []float64, series []Series) error {
	p := newPlot(title, y)
	p.X.Label.Text = xLabel
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.Left = true
	p.Add(plotter.NewGrid())
	for _, s := range series {
		var points plotter.XYs
		for j, v := range s.Values {
			if v > 0 { // false for NaN
				points = append(points, plotter.XY{X: x[j], Y: v})
			}
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		line.Color, dots.Color, line.Width = seriesColor(s.Color), seriesColor(s.Color), vg.Points(1.5)
		p.Add(line, dots)
		p.Legend.Add(s.Name, line, dots)
	}
	if logY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		// Use whole powers of ten, because otherwise LogTicks may omit all labels,
		// and one more power to leave room for the legend.
		p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(p.Y.Min))), math.Pow(10, math.Ceil(math.Log10(p.Y.Max))+1)
	} else {
		p.Y.Min, p.Y.Max = 0, 1.4*p.Y.Max
	}
	return save(p, 15*vg.Centimeter, path)
}

// Time draws a line for each series over time, on axes that begin at 0.
func Time(path, title, xLabel string, x []float64, series []Series) error {
	p := newPlot(title, "")
	p.X.Label.Text = xLabel
	p.Legend.Left = true
	p.Add(plotter.NewGrid())
	for _, s := range series {
		var points plotter.XYs
		for j, v := range s.Values {
			points = append(points, plotter.XY{X: x[j], Y: v})
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		line.Color, line.Width = seriesColor(s.Color), vg.Points(1.2)
		p.Add(line)
		p.Legend.Add(s.Name, line)
	}
	p.Y.Min, p.Y.Max = 0, 1.3*p.Y.Max
	return save(p, 20*vg.Centimeter, path)
}

func save(p *plot.Plot, width vg.Length, path string) error {
	if err := p.Save(width, height, path); err != nil {
		return fmt.Errorf("draw %s: %w", path, err)
	}
	return nil
}

// whiskers are the error bars of a series of bars.
type whiskers struct {
	series Series
	offset vg.Length
}

// Plot implements plot.Plotter.
func (w *whiskers) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	style := draw.LineStyle{Color: color.Gray{Y: 0x30}, Width: vg.Points(0.7)}
	for i := range w.series.Values {
		low, high := w.series.Low[i], w.series.High[i]
		if math.IsNaN(low) || math.IsNaN(high) {
			continue
		}
		x := toX(float64(i)) + w.offset
		c.StrokeLine2(style, x, toY(low), x, toY(high))
		for _, end := range []float64{low, high} {
			c.StrokeLine2(style, x-barWidth/4, toY(end), x+barWidth/4, toY(end))
		}
	}
}
