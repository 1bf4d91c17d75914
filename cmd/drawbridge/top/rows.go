package top

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	views "github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
)

// rowsOf returns the rows of a view, with a cell for each of its headers.
func rowsOf(v view, m *meter) [][]cell {
	switch v {
	case upstreams:
		return upstreamRows(m)
	case connections:
		return connectionRows(m)
	}
	return listenerRows(m)
}

func listenerRows(m *meter) [][]cell {
	var out [][]cell
	for _, l := range m.now.status.GetListeners() {
		of := listenerKey(l)
		out = append(out, []cell{
			word(l.GetName()), word(format.Lower(l.GetState())), number(l.GetConnections()), m.perSecond(of, accepted), m.perSecond(of, requests),
			m.bytesPerSecond(of, received), m.bytesPerSecond(of, sent), m.perSecond(of, failed),
		})
	}
	return out
}

func upstreamRows(m *meter) [][]cell {
	var out [][]cell
	for _, u := range m.now.upstreams {
		for _, e := range u.GetEndpoints() {
			of := endpointKey(u, e)
			out = append(out, []cell{
				word(u.GetName()), word(e.GetAddress()), word(format.Lower(e.GetHealth())), number(e.GetConnections()), number(e.GetRequestsInFlight()),
				m.perSecond(of, connected), m.perSecond(of, requests), m.perSecond(of, failed),
			})
		}
	}
	return out
}

func connectionRows(m *meter) [][]cell {
	var out [][]cell
	for _, c := range m.now.connections {
		side := cmp.Or(c.GetClient(), c.GetServer())
		age := c.GetAge().AsDuration()
		out = append(out, []cell{
			word(c.GetId()), word(c.GetListener()), word(views.ClientOf(c)), word(views.IdentityOf(c)), word(c.GetUpstream()), word(format.Lower(c.GetState())),
			m.bytesPerSecond(c.GetId(), received), m.bytesPerSecond(c.GetId(), sent), size(side.GetBytesReceived()), size(side.GetBytesSent()),
			{text: age.Truncate(time.Second).String(), number: age.Seconds(), isNumber: true},
		})
	}
	return out
}

func word(text string) cell { return cell{text: text} }
func number(n int64) cell   { return cell{strconv.FormatInt(n, 10), float64(n), true} }
func size(n int64) cell     { return cell{terminal.Bytes(n), float64(n), true} }
func (m *meter) perSecond(of, what string) cell {
	n, known := m.rate(of, what)
	if !known {
		return cell{isNumber: true}
	}
	if n >= 100 || n == float64(int64(n)) {
		return cell{fmt.Sprintf("%.0f", n), n, true}
	}
	return cell{fmt.Sprintf("%.1f", n), n, true}
}

func (m *meter) bytesPerSecond(of, what string) cell {
	n, known := m.rate(of, what)
	if !known {
		return cell{isNumber: true}
	}
	return cell{terminal.Bytes(int64(n)), n, true}
}
