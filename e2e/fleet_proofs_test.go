// Processes of a fleet die at every moment of a write or a rollout. No acknowledged write is
// lost, every gateway converges to the head, no gateway serves a revision that was never
// committed, and a connection breaks only if its gateway dies. DRAWBRIDGE_FLEET_PROOFS is how
// often each proof runs at its full length; without it, each runs once in a short form.

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// fleetProofs are the proofs of a fleet.
var fleetProofs = map[string]func(*proof){
	"a confirmation outlives its gateway": proveConfirmations,
	"a rollout outlives its gateways":     proveRollouts,
	"a write is whole or not at all":      proveWrites,
	"a quorum has what was acknowledged":  proveQuorum,
}

// A proof is the test of one property, and adds rows to the table of all proofs.
type proof struct {
	*testing.T
	rounds int // how often to run at full length; 0: once, in the short form
	table  *proofTable
}

func TestFleetProofs(t *testing.T) {
	t.Parallel()
	need(t, "etcd")
	rounds, table := often(t, "DRAWBRIDGE_FLEET_PROOFS", 0), &proofTable{}
	t.Cleanup(func() { t.Logf("\n%s", table) })
	for name, prove := range fleetProofs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prove(&proof{t, rounds, table})
		})
	}
}

// row adds a row to the table: what it did and what it found.
func (p *proof) row(done, found string) {
	_, name, _ := strings.Cut(p.Name(), "/")
	p.table.add(strings.ReplaceAll(name, "_", " "), done, found)
}

// A proofTable lists what the proofs did and found.
type proofTable struct {
	mu   sync.Mutex
	rows []string // cells separated by tabs; guarded by mu
}

func (t *proofTable) add(cells ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, strings.Join(cells, "\t"))
}

func (t *proofTable) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROOF\tDONE\tFOUND")
	for _, row := range t.rows {
		fmt.Fprintln(w, row)
	}
	_ = w.Flush()
	return out.String()
}
