package flame

import (
	"bufio"
	"errors"
	"fmt"
	"html"
	"io"

	"github.com/google/pprof/profile"
)

const (
	width     = 1200 // pixels of the whole CPU time
	rowHeight = 17
	header    = 44
	charWidth = 6.6 // for the font size

	// thinnest is the width below which a box is left out, with all that it calls.
	thinnest = 2.5
)

// colors are those of the owners.
var colors = [owners]string{"#c8c8c8", "#f3c77a", "#9fcbe8", "#e6e2a0", "#8fd3b8"}

// Draw writes the flame graph of a profile. It returns an error if the profile is empty.
func Draw(w io.Writer, title string, p *profile.Profile) error {
	root := treeOf(p)
	if root.total == 0 {
		return errors.New("the profile has no samples")
	}
	d := &drawing{out: bufio.NewWriter(w), scale: width / float64(root.total), total: root.total}
	height := header + rowHeight*d.depth(root)
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="monospace" font-size="11">`+"\n", width, height)
	d.printf(`<rect width="100%%" height="100%%" fill="white"/>` + "\n")
	d.printf(`<text x="4" y="15" font-size="13">%s</text>`+"\n", html.EscapeString(title))
	d.legend(Shares(p))
	d.box(root, 0, header)
	d.printf("</svg>\n")
	return d.out.Flush()
}

// A drawing writes one flame graph.
type drawing struct {
	out   *bufio.Writer
	scale float64 // pixels per unit of CPU time
	total int64
}

// printf writes to a buffer, which returns the first error when it is flushed.
func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

func (d *drawing) shown(n *node) bool { return float64(n.total)*d.scale >= thinnest }

// depth returns how many rows a function and what it calls take.
func (d *drawing) depth(n *node) int {
	deepest := 0
	for _, c := range n.calls {
		if d.shown(c) {
			deepest = max(deepest, d.depth(c))
		}
	}
	return deepest + 1
}

func (d *drawing) legend(shares []float64) {
	x := 4.0
	for o := range owners {
		text := fmt.Sprintf("%s %.0f %%", o, 100*shares[o])
		d.printf(`<rect x="%.1f" y="24" width="12" height="12" fill="%s"/><text x="%.1f" y="34">%s</text>`+"\n", x, colors[o], x+16, text)
		x += 40 + charWidth*float64(len(text))
	}
}

// box draws a function, and below it what it calls.
func (d *drawing) box(n *node, x, y float64) {
	w := float64(n.total) * d.scale
	name := html.EscapeString(n.name)
	d.printf(`<g><title>%s: %.1f %%, itself %.1f %%</title><rect x="%.1f" y="%.0f" width="%.1f" height="%d" fill="%s" stroke="white" stroke-width="0.5"/>`,
		name, 100*float64(n.total)/float64(d.total), 100*float64(n.flat)/float64(d.total), x, y, w, rowHeight, colors[ownerOf(n.name)])
	if letters := int((w - 4) / charWidth); letters >= 3 {
		d.printf(`<text x="%.1f" y="%.0f">%s</text>`, x+2, y+12, html.EscapeString(shorten(n.name, letters)))
	}
	d.printf("</g>\n")
	for _, c := range n.ordered() {
		if d.shown(c) {
			d.box(c, x, y+rowHeight)
		}
		x += float64(c.total) * d.scale
	}
}

// shorten returns the end of a name, which tells more than its beginning, in some letters.
func shorten(name string, letters int) string {
	if len(name) <= letters {
		return name
	}
	return ".." + name[len(name)-letters+2:]
}
