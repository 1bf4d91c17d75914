package gateway

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
)

// scaleResources is the number of upstreams in the configuration of TestAFleetConverges.
const scaleResources = 100

// TestAFleetConverges starts many gateways of one fleet in this process, and waits until
// every write is live at all of them. With DRAWBRIDGE_FLEET=GATEWAYS,WRITES it also observes
// an idle fleet for half a minute, and prints what a write and an idle gateway cost.
func TestAFleetConverges(t *testing.T) {
	gateways, writes, idle := 4, 4, time.Duration(0)
	if v := os.Getenv("DRAWBRIDGE_FLEET"); v != "" {
		if _, err := fmt.Sscanf(v, "%d,%d", &gateways, &writes); err != nil {
			t.Fatalf("DRAWBRIDGE_FLEET=%s: %v", v, err)
		}
		idle = 30 * time.Second
	} else {
		t.Parallel()
	}
	c := etcdtest.Start(t, 1)
	f := &scaledFleet{t: t, arrived: make(chan arrival, gateways)}
	began := time.Now()
	for i := range gateways {
		f.add(c, i)
	}
	t.Logf("%d gateways joined in %v", gateways, time.Since(began).Round(time.Millisecond))
	resources := []store.Resource{tcpListener("in", "127.0.0.1:0"), plainUpstream("up", "127.0.0.1:1")}
	for i := range scaleResources {
		resources = append(resources, plainUpstream(fmt.Sprint("u", i), "127.0.0.1:1"))
	}
	f.write(0, resources...)
	f.measured(c, "a write", writes, func() {
		var committed, converged []time.Duration
		for i := range writes {
			took, times := f.write(i%gateways, plainUpstream(fmt.Sprint("u", i%scaleResources), fmt.Sprint("127.0.0.1:", 2+i)))
			committed, converged = append(committed, took), append(converged, times...)
		}
		t.Logf("a write is answered after %s", quantiles(committed))
		t.Logf("a write is live at a gateway after %s", quantiles(converged))
	})
	f.burst(writes)
	if idle > 0 {
		f.measured(c, "a second of an idle fleet", int(idle/time.Second), func() { time.Sleep(idle) })
	}
}

// A scaledFleet is a fleet of gateways in this process.
type scaledFleet struct {
	t        *testing.T
	gateways []*testGateway
	arrived  chan arrival
	revision int64
}

// An arrival is the time when a revision became live at a gateway.
type arrival struct {
	revision int64
	at       time.Time
}

// add starts a gateway, and a goroutine that reports its revisions.
func (f *scaledFleet) add(c *etcdtest.Cluster, i int) {
	join := inFleet(f.t, c)
	g := start(f.t, "", func(o *Options) {
		join(o)
		o.Fleet.ID, o.Fleet.Poll = fmt.Sprintf("gateway-%03d", i), 0
		o.Ops, o.Logger = "", hclog.NewNullLogger()
	})
	f.gateways = append(f.gateways, g)
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		for after := int64(0); ; {
			updates, changed, err := g.Updates(after)
			if err != nil {
				f.t.Errorf("gateway %d: %v", i, err)
				return
			}
			for _, u := range updates {
				after = u.Revision
				select {
				case f.arrived <- arrival{after, time.Now()}:
				case <-ctx.Done():
					return
				}
			}
			if len(updates) > 0 {
				continue // changed is nil
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	f.t.Cleanup(func() {
		cancel()
		watching.Wait()
	})
}

// write writes resources at a gateway, and waits until they are live at all. It returns the
// times from the call to the answer, and to each gateway's revision.
func (f *scaledFleet) write(at int, resources ...store.Resource) (answered time.Duration, live []time.Duration) {
	f.t.Helper()
	began := time.Now()
	f.gateways[at].put(resources...)
	answered = time.Since(began)
	f.revision++
	for range f.gateways {
		select {
		case a := <-f.arrived:
			if a.revision != f.revision {
				f.t.Fatalf("revision %d became live, want %d", a.revision, f.revision)
			}
			live = append(live, a.at.Sub(began))
		case <-time.After(deadline):
			f.t.Fatalf("revision %d is live at only %d of %d gateways", f.revision, len(live), len(f.gateways))
		}
	}
	return answered, live
}

// burst writes without waiting for the fleet, and prints when all gateways have the last
// revision.
func (f *scaledFleet) burst(writes int) {
	f.t.Helper()
	var answered time.Duration
	began := time.Now()
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for i := range writes {
			if _, err := f.gateways[0].Apply(context.Background(), store.Edit{Puts: puts(plainUpstream(fmt.Sprint("u", i%scaleResources), "127.0.0.1:1"))}); err != nil {
				f.t.Error(err)
			}
		}
		answered = time.Since(began)
	}()
	last := f.revision + int64(writes)
	for reached := 0; reached < len(f.gateways); {
		select {
		case a := <-f.arrived:
			if a.revision == last {
				reached++
			}
		case <-time.After(deadline):
			f.t.Errorf("revision %d is live at only %d of %d gateways", last, reached, len(f.gateways))
			reached = len(f.gateways)
		}
	}
	<-wrote
	f.revision = last
	f.t.Logf("%d writes in a row are answered after %v and live at all gateways after %v", writes, answered.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// measured prints what each of n runs of work costs: CPU and bytes.
func (f *scaledFleet) measured(c *etcdtest.Cluster, what string, n int, work func()) {
	f.t.Helper()
	before, ownBefore, began := scrape(f.t, c), ownCPU(f.t), time.Now()
	work()
	took, own, after := time.Since(began), ownCPU(f.t)-ownBefore, scrape(f.t, c)
	each := func(name string) float64 { return (after[name] - before[name]) / float64(n) }
	per := float64(n * len(f.gateways))
	f.t.Logf("%s costs each gateway %.0f bytes received, %.0f bytes sent and %v of CPU; etcd %v of CPU; all gateways used %.2f cores, and etcd %.2f", what,
		each("etcd_network_client_grpc_sent_bytes_total")/float64(len(f.gateways)), each("etcd_network_client_grpc_received_bytes_total")/float64(len(f.gateways)),
		time.Duration(float64(own)/per).Round(time.Microsecond), time.Duration(each("process_cpu_seconds_total")*float64(time.Second)).Round(time.Microsecond),
		own.Seconds()/took.Seconds(), (after["process_cpu_seconds_total"]-before["process_cpu_seconds_total"])/took.Seconds())
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	f.t.Logf("etcd has %.0f watches for %d gateways, and uses %.0f MiB; a gateway has %d KiB in its heap", after["etcd_debugging_mvcc_watcher_total"], len(f.gateways),
		after["process_resident_memory_bytes"]/(1<<20), m.HeapAlloc/uint64(len(f.gateways))>>10)
}

// ownCPU returns the CPU time of this process.
func ownCPU(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// scrape returns the metrics without labels of an etcd member.
func scrape(t *testing.T, c *etcdtest.Cluster) map[string]float64 {
	t.Helper()
	resp, err := http.Get("http://" + c.Endpoints()[0] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	out := map[string]float64{}
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			out[name] = v
		}
	}
	return out
}

func quantiles(d []time.Duration) string {
	slices.Sort(d)
	at := func(q float64) time.Duration {
		return d[min(int(q*float64(len(d))), len(d)-1)].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("%v (p50), %v (p99), %v (max) of %d", at(0.5), at(0.99), d[len(d)-1].Round(100*time.Microsecond), len(d))
}
