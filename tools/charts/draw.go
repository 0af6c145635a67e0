package main

import (
	"bytes"
	"fmt"
	"html"
	"image/color"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// hue is a colour of the picture by its purpose. The library writes the one in
// paint; recolour replaces it by a name that the style gives a light and a dark
// meaning.
type hue struct {
	name, light, dark string
	paint             color.RGBA
}

var (
	ink  = hue{"ink", "#1f2328", "#e6edf3", color.RGBA{1, 2, 3, 255}}
	line = hue{"line", "#d1d9e0", "#3d444d", color.RGBA{1, 2, 4, 255}}
	good = hue{"good", "#0969da", "#4493f8", color.RGBA{1, 2, 5, 255}}
	less = hue{"less", "#bc4c00", "#db6d28", color.RGBA{1, 2, 6, 255}}
	base = hue{"base", "#1a7f37", "#3fb950", color.RGBA{1, 2, 7, 255}}
	hues = []hue{ink, line, good, less, base}
)

// Sizes of the picture, in points.
const (
	wide  = 620
	each  = 20 // of a bar with the room to the next one
	thick = 12
	frame = 70 // of title and axis
)

// svg draws the bars from top to bottom in their order.
func svg(title, axis string, bs []bar, ratio bool) ([]byte, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text = title, axis
	style(p)
	words := 0.0 // where the words may begin
	if ratio {
		words = 1 // not across the line there
	}
	if err := addBars(p, bs, words); err != nil {
		return nil, err
	}
	longest := 0.0
	for _, b := range bs {
		longest = max(longest, b.long)
	}
	if longest == 0 {
		longest = 1
	}
	p.X.Min, p.X.Max = 0, longest*1.35 // room for the words
	if ratio {
		p.X.Max = max(longest, 1) * 1.35
		p.Add(baseline(len(bs)))
	}
	p.Y.Min, p.Y.Max = -0.6, float64(len(bs))-0.4
	c := vgsvg.New(wide, vg.Length(frame+each*len(bs)))
	p.Draw(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("draw: %w", err)
	}
	return recolour(b.String(), title, bs), nil
}

// sans is the library's name of a font as wide as Arial and Helvetica.
const sans = "Sans"

func style(p *plot.Plot) {
	p.BackgroundColor = nil // the page's own
	p.Title.TextStyle.Color, p.Title.TextStyle.Font.Size, p.Title.Padding = ink.paint, 13, 6
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Tick.Color = line.paint, line.paint
		a.Label.TextStyle.Color, a.Tick.Label.Color = ink.paint, ink.paint
		a.Label.TextStyle.Font.Size, a.Tick.Label.Font.Size = 10, 9
		a.Label.TextStyle.Font.Variant, a.Tick.Label.Font.Variant = sans, sans
	}
	p.Title.TextStyle.Font.Variant = sans
	p.Y.Padding = 8 // for fonts that are wider
}

// addBars adds the good and the other bars, and the words at their ends.
func addBars(p *plot.Plot, bs []bar, least float64) error {
	n := len(bs)
	names := make([]string, n)
	words := plotter.XYLabels{XYs: make(plotter.XYs, n), Labels: make([]string, n)}
	lengths := map[bool]plotter.Values{true: make(plotter.Values, n), false: make(plotter.Values, n)}
	for i, b := range bs {
		at := n - 1 - i // the axis goes up
		names[at] = b.name
		lengths[b.good][at] = b.long
		words.XYs[at], words.Labels[at] = plotter.XY{X: max(b.long, least), Y: float64(at)}, b.label
	}
	for _, h := range []hue{good, less} {
		bars, err := plotter.NewBarChart(lengths[h == good], thick)
		if err != nil {
			return fmt.Errorf("draw: %w", err)
		}
		bars.Horizontal, bars.Color, bars.LineStyle.Width = true, h.paint, 0
		p.Add(bars)
	}
	labels, err := plotter.NewLabels(words)
	if err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	for i := range labels.TextStyle {
		labels.TextStyle[i].Font.Variant = sans
		labels.TextStyle[i].Color, labels.TextStyle[i].Font.Size, labels.TextStyle[i].YAlign = ink.paint, 9, draw.YCenter
	}
	labels.Offset.X = 4
	p.Add(labels)
	p.NominalY(names...)
	return nil
}

// baseline is the line at 1.
func baseline(n int) plot.Plotter {
	l, _ := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.6}, {X: 1, Y: float64(n) - 0.4}}) // two points are never too few
	l.Color, l.Width, l.Dashes = base.paint, 1, []vg.Length{3, 2}
	return l
}

// recolour gives the picture its style, and words for those who do not see it.
func recolour(s, title string, bs []bar) []byte {
	var light, dark strings.Builder
	for _, h := range hues {
		hex := fmt.Sprintf("#%02X%02X%02X", h.paint.R, h.paint.G, h.paint.B)
		s = strings.ReplaceAll(s, hex, fmt.Sprintf("var(--%s,%s)", h.name, h.light))
		fmt.Fprintf(&light, "--%s:%s;", h.name, h.light)
		fmt.Fprintf(&dark, "--%s:%s;", h.name, h.dark)
	}
	s = strings.ReplaceAll(s, "font-family:Liberation Sans", "font-family:Arial,Helvetica,'Liberation Sans',sans-serif")
	var words strings.Builder
	for _, b := range bs {
		words.WriteString(b.name + ": " + b.label + "; ")
	}
	head := fmt.Sprintf("<title>%s</title>\n<desc>%s</desc>\n<style>:root{%s}@media(prefers-color-scheme:dark){:root{%s}}</style>\n",
		html.EscapeString(title), html.EscapeString(strings.TrimSuffix(words.String(), "; ")), &light, &dark)
	if i := strings.Index(s, "<svg"); i >= 0 {
		if j := strings.IndexByte(s[i:], '>'); j >= 0 {
			s = s[:i+j+1] + "\n" + head + s[i+j+2:]
		}
	}
	return []byte(s)
}

// finite is whether an axis can be drawn for the bars.
func finite(bs []bar) bool {
	for _, b := range bs {
		if math.IsInf(b.long, 0) || math.IsNaN(b.long) || b.long > math.MaxFloat32 {
			return false
		}
	}
	return true
}
