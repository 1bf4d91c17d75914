package load

import (
	"strings"
	"testing"
	"time"
)

const wrkSays = `Running 1s test @ http://127.0.0.1:18999/
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   197.38us  382.25us   6.92ms   90.44%
    Req/Sec    78.53k     7.35k   83.73k    81.82%
  Latency Distribution
     50%   81.00us
     75%  132.00us
     90%  547.00us
     99%    1.77ms
  85688 requests in 1.10s, 9.89MB read
Requests/sec:  77888.06
Transfer/sec:      8.99MB
`

const h2loadSays = `finished in 1.00s, 107303.00 req/s, 12.38MB/s
requests: 107303 total, 107319 started, 107303 done, 107303 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 107303 2xx, 0 3xx, 0 4xx, 0 5xx
`

const pgbenchSays = `pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: <builtin: TPC-B (sort of)>
scaling factor: 10
number of clients: 8
number of transactions actually processed: 6121
number of failed transactions: 0 (0.000%)
latency average = 3.921 ms
tps = 2040.300881 (without initial connection time)
`

func TestOutputOfProgramsIsParsed(t *testing.T) {
	got, err := readWrk(wrkSays)
	if want := (Outcome{85688, 81 * time.Microsecond, 1770 * time.Microsecond}); got != want || err != nil {
		t.Errorf("wrk: %+v, %v, want %+v", got, err, want)
	}
	got, err = readH2load(h2loadSays)
	if want := (Outcome{Units: 107303}); got != want || err != nil {
		t.Errorf("h2load: %+v, %v, want %+v", got, err, want)
	}
	got, err = readPgbench(pgbenchSays)
	if want := (Outcome{Units: 6121}); got != want || err != nil {
		t.Errorf("pgbench: %+v, %v, want %+v", got, err, want)
	}
}

func TestFailedRequestsFailTheProgram(t *testing.T) {
	for _, more := range []string{"  Socket errors: connect 0, read 3, write 0, timeout 0\n", "  Non-2xx or 3xx responses: 17\n"} {
		if _, err := readWrk(wrkSays + more); err == nil {
			t.Errorf("wrk's %q does not count as a failure", more)
		}
	}
	for _, edit := range [][2]string{{" 0 failed", " 3 failed"}, {"107303 2xx, 0 3xx, 0 4xx, 0 5xx", "107300 2xx, 0 3xx, 0 4xx, 3 5xx"}} {
		if _, err := readH2load(strings.Replace(h2loadSays, edit[0], edit[1], 1)); err == nil {
			t.Errorf("h2load's %q does not count as a failure", edit[1])
		}
	}
	if _, err := readPgbench(strings.Replace(pgbenchSays, "transactions: 0 (0.000%)", "transactions: 3 (0.049%)", 1)); err == nil {
		t.Error("failed transactions of pgbench do not count as a failure")
	}
	for _, read := range []func(string) (Outcome, error){readWrk, readH2load, readPgbench} {
		if _, err := read("cannot connect"); err == nil {
			t.Error("no line was understood, and that does not count as a failure")
		}
	}
}
