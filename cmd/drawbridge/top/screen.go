package top

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
)

// A view is a kind of table.
type view string

const (
	listeners   view = "listeners"
	upstreams   view = "upstreams"
	connections view = "connections"
)

// headers are the columns of the views.
var headers = map[view][]string{
	listeners:   {"LISTENER", "STATE", "OPEN", "CONN/S", "REQ/S", "RECEIVED/S", "SENT/S", "FAILED/S"},
	upstreams:   {"UPSTREAM", "ENDPOINT", "HEALTH", "OPEN", "IN FLIGHT", "CONN/S", "REQ/S", "FAILED/S"},
	connections: {"ID", "LISTENER", "CLIENT", "IDENTITY", "UPSTREAM", "STATE", "RECEIVED/S", "SENT/S", "RECEIVED", "SENT", "AGE"},
}

// A cell is a text and, if it is a number, its value for sorting.
type cell struct {
	text     string
	number   float64
	isNumber bool
}

// A screen shows a meter's readings as text.
type screen struct {
	view     view
	column   map[view]int // the column to sort by
	reversed bool
	filter   string
	typing   bool // keys edit the filter
	paint    terminal.Paint
	keys     bool // the last line explains the keys
}

func newScreen(o options, p terminal.Paint) *screen {
	s := &screen{view: o.view, column: map[view]int{}, filter: o.filter, paint: p}
	if o.sort != "" {
		s.column[o.view] = slices.Index(headers[o.view], strings.ToUpper(o.sort))
	}
	return s
}

// press handles a key, and reports whether another reading is needed.
func (s *screen) press(key rune) (reread bool) {
	if s.typing {
		s.typeFilter(key)
		return false
	}
	before := s.view
	switch key {
	case 'l':
		s.view = listeners
	case 'u':
		s.view = upstreams
	case 'c':
		s.view = connections
	case 's':
		s.column[s.view] = (s.column[s.view] + 1) % len(headers[s.view])
	case 'r':
		s.reversed = !s.reversed
	case '/':
		s.typing = true
	case escape:
		s.filter = ""
	}
	return s.view != before
}

// maxFilter bounds the filter, in bytes.
const maxFilter = 100

func (s *screen) typeFilter(key rune) {
	switch key {
	case enter, '\n':
		s.typing = false
	case escape:
		s.typing, s.filter = false, ""
	case backspace, erase:
		if r := []rune(s.filter); len(r) > 0 {
			s.filter = string(r[:len(r)-1])
		}
	default:
		if text := terminal.Printable(string(key)); text == string(key) && len(s.filter)+len(text) <= maxFilter {
			s.filter += text
		}
	}
}

// lines returns the lines of the screen.
func (s *screen) lines(m *meter) []string {
	rows := rowsOf(s.view, m)
	total := len(rows)
	rows = slices.DeleteFunc(rows, func(row []cell) bool { return !s.shows(row) })
	s.sort(rows)
	t := &terminal.Table{Header: slices.Clone(headers[s.view])}
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = c.text
		}
		t.Add(cells...)
	}
	var text bytes.Buffer
	_ = t.Write(&text, s.paint) // writing to memory does not fail
	out := []string{s.title(m), failureLine(m, s.paint), s.legend(len(rows), total), ""}
	table := strings.Split(strings.TrimRight(text.String(), "\n"), "\n")
	table[0] = s.paint.Strong(table[0])
	return append(out, table...)
}

func (s *screen) title(m *meter) string {
	st := m.now.status
	state := s.paint.Good("ready")
	if !st.GetReady() {
		state = s.paint.Bad("not ready")
	}
	return fmt.Sprintf("drawbridge %s  up %v  revision %d  %s  clients %d  upstream connections %d  %s", st.GetVersion(), st.GetUptime().AsDuration().Truncate(time.Second), st.GetRevision(), state,
		st.GetDescriptors().GetClients(), st.GetDescriptors().GetUpstreams(), m.now.at.Format(time.TimeOnly))
}

// failureLine returns the failures since the command began, the most frequent first.
func failureLine(m *meter, p terminal.Paint) string {
	reasons := slices.Collect(maps.Keys(m.failures))
	reasons = slices.DeleteFunc(reasons, func(r string) bool { return m.failures[r] == 0 })
	if len(reasons) == 0 {
		return "failures: " + p.Good("none")
	}
	slices.SortFunc(reasons, func(a, b string) int {
		return cmp.Or(cmp.Compare(m.failures[b], m.failures[a]), strings.Compare(a, b))
	})
	for i, r := range reasons {
		reasons[i] = fmt.Sprintf("%s %d", r, m.failures[r])
	}
	return "failures: " + p.Bad(strings.Join(reasons, ", "))
}

// legend returns a line with the view and, on a terminal, the keys.
func (s *screen) legend(shown, total int) string {
	text := fmt.Sprintf("%s, by %s", s.view, headers[s.view][s.column[s.view]])
	if s.reversed {
		text += " reversed"
	}
	if s.typing {
		return text + "  filter: " + s.filter + "_  (Enter: done, Esc: clear)"
	}
	if s.filter != "" {
		text += fmt.Sprintf("  filter: %s (%d of %d)", terminal.Printable(s.filter), shown, total)
	}
	if s.keys {
		text += s.paint.Faint("  keys: l u c view, s sort, r reverse, / filter, q quit")
	}
	return text
}

// shows reports whether a row contains the filter, ignoring case.
func (s *screen) shows(row []cell) bool {
	wanted := strings.ToLower(s.filter)
	return slices.ContainsFunc(row, func(c cell) bool { return strings.Contains(strings.ToLower(c.text), wanted) })
}

// sort sorts rows by the column: texts ascending and numbers descending, unless
// reversed.
func (s *screen) sort(rows [][]cell) {
	i := s.column[s.view]
	slices.SortStableFunc(rows, func(a, b []cell) int {
		order := strings.Compare(a[i].text, b[i].text)
		if a[i].isNumber || b[i].isNumber {
			order = cmp.Compare(b[i].number, a[i].number)
		}
		if s.reversed {
			order = -order
		}
		return order
	})
}
