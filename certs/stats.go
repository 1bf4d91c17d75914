package certs

import (
	"maps"
	"sync"
)

// A FullReason says why a handshake was full and not a resumption. Its text is
// that of the API's enum without its prefix.
type FullReason string

// Every reason there is.
const (
	// FullNoTicket: the server has given no ticket yet.
	FullNoTicket FullReason = "NO_TICKET"
	// FullExpired: the ticket, or the certificate it was given under, was too
	// old.
	FullExpired FullReason = "EXPIRED"
	// FullUsedUp: every ticket was in use already.
	FullUsedUp FullReason = "USED_UP"
	// FullCredentialsChanged: there were sessions, but of the Client that this
	// one has replaced.
	FullCredentialsChanged FullReason = "CREDENTIALS_CHANGED"
	// FullRefused: the server did not take the session offered, or what it
	// resumed did not verify any more and the rest was dropped.
	FullRefused FullReason = "REFUSED"
	// FullReuseOff: ClientOptions.NoSessionReuse.
	FullReuseOff FullReason = "REUSE_OFF"
	// FullFlushed: the sessions were dropped by Client.Flush.
	FullFlushed FullReason = "FLUSHED"
)

// SessionStats counts the handshakes of one Client that succeeded.
type SessionStats struct {
	// Resumed is how many resumed a session.
	Resumed uint64
	// Full is how many did not, by why.
	Full map[FullReason]uint64
	// Reported is how many failures VerifyReportOnly let through, by reason;
	// there may be several in one handshake.
	Reported map[Reason]uint64
}

// counters is where a Client counts.
type counters struct {
	mu    sync.Mutex
	stats SessionStats
}

// count counts a handshake; full is empty if it resumed.
func (c *counters) count(full FullReason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if full == "" {
		c.stats.Resumed++
		return
	}
	if c.stats.Full == nil {
		c.stats.Full = make(map[FullReason]uint64)
	}
	c.stats.Full[full]++
}

func (c *counters) report(failures []*VerifyError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stats.Reported == nil {
		c.stats.Reported = make(map[Reason]uint64)
	}
	for _, f := range failures {
		c.stats.Reported[f.Reason]++
	}
}

func (c *counters) snapshot() SessionStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return SessionStats{
		Resumed:  c.stats.Resumed,
		Full:     maps.Clone(c.stats.Full),
		Reported: maps.Clone(c.stats.Reported),
	}
}
