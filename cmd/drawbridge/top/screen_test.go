package top

import (
	"strings"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var begun = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// readingAt returns a reading of two listeners. The listener busy has served some
// requests.
func readingAt(seconds int, requests, timeouts int64) *reading {
	r := &reading{at: begun.Add(time.Duration(seconds) * time.Second), counts: map[counter]int64{}, failures: map[string]int64{}}
	r.status = &adminv1.GetStatusResponse{Version: "v1", Ready: true, Listeners: []*adminv1.ListenerStatus{
		{Name: "idle", State: adminv1.ListenerState_LISTENER_STATE_UP, Connections: 9},
		{Name: "busy", State: adminv1.ListenerState_LISTENER_STATE_UP, Connections: 10, Requests: requests, BytesReceived: 2048 * requests,
			HandshakeFailures: []*adminv1.FailureCount{{Reason: adminv1.Reason_REASON_UNKNOWN_CA, Count: 7}}},
	}}
	r.upstreams = []*adminv1.UpstreamStatus{{Name: "up", Endpoints: []*adminv1.EndpointStatus{{
		Address: "a:1", Health: adminv1.EndpointHealth_ENDPOINT_HEALTH_UP, Failures: []*adminv1.FailureCount{{Reason: adminv1.Reason_REASON_CONNECT_TIMEOUT, Count: timeouts}},
	}}}}
	r.count()
	return r
}

// table returns the lines of the table, without the lines above it.
func table(s *screen, m *meter) []string {
	lines := s.lines(m)
	return lines[4:]
}

func TestRatesAreBetweenTwoReadings(t *testing.T) {
	var m meter
	s := newScreen(options{view: listeners}, false)
	m.add(readingAt(0, 100, 5))
	if got := table(s, &m); !strings.HasPrefix(got[1], "busy       up      10     -        -       -") {
		t.Errorf("the first table shows rates:\n%s", strings.Join(got, "\n"))
	}
	m.add(readingAt(2, 150, 8))
	if got := table(s, &m); !strings.HasPrefix(got[1], "busy       up      10     0        25      50.0 KiB") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if got := s.lines(&m)[1]; got != "failures: CONNECT_TIMEOUT 3" {
		t.Errorf("the failures since the first reading are %q", got)
	}
	m.add(readingAt(4, 10, 1)) // the resources were replaced, and their counts began again
	if got := table(s, &m); !strings.HasPrefix(got[1], "busy       up      10     0        5 ") {
		t.Errorf("after counts began again:\n%s", strings.Join(got, "\n"))
	}
	if got := s.lines(&m)[1]; got != "failures: CONNECT_TIMEOUT 4" {
		t.Errorf("the failures are %q", got)
	}
}

func TestKeysSortFilterAndChangeTheView(t *testing.T) {
	var m meter
	s := newScreen(options{view: listeners, sort: "open"}, false)
	m.add(readingAt(0, 1, 1))
	names := func() string {
		var out []string
		for _, line := range table(s, &m)[1:] {
			name, _, _ := strings.Cut(line, " ")
			out = append(out, name)
		}
		return strings.Join(out, " ")
	}
	if got := names(); got != "busy idle" {
		t.Errorf("by OPEN: %s; numbers are sorted as numbers, the greatest first", got)
	}
	if s.press('r'); names() != "idle busy" {
		t.Errorf("reversed: %s", names())
	}
	for _, key := range "/BUSYx\x7f" {
		if s.press(key) {
			t.Errorf("%q needs another reading", key)
		}
	}
	if names() != "busy" || !strings.Contains(s.legend(1, 2), "filter: BUSY_") {
		t.Errorf("filtered: %s, %s", names(), s.legend(1, 2))
	}
	s.press(enter)
	if !strings.Contains(s.legend(1, 2), "filter: BUSY (1 of 2)") {
		t.Errorf("the legend is %s", s.legend(1, 2))
	}
	if s.press(escape); names() != "idle busy" {
		t.Errorf("without the filter: %s", names())
	}
	if !s.press('u') || s.press('u') {
		t.Error("a new view must request exactly one reading")
	}
	if got := table(s, &m); len(got) != 2 || !strings.HasPrefix(got[1], "up         a:1        up") {
		t.Errorf("upstreams:\n%s", strings.Join(got, "\n"))
	}
	for range headers[upstreams] {
		s.press('s')
	}
	if s.column[upstreams] != 0 {
		t.Error("the first column does not follow the last one")
	}
}

func TestALineIsCutAtTheWidthOfTheTerminal(t *testing.T) {
	for line, want := range map[string]string{
		"abcdef":                "abcd",
		"äöüß€":                 "äöüß",
		"\x1b[31mabcdef\x1b[0m": "\x1b[31mabcd",
		"ab":                    "ab",
	} {
		if got := fit(line, 4); got != want {
			t.Errorf("%q becomes %q, want %q", line, got, want)
		}
	}
}
