package certs

import (
	"maps"
	"sync"
)

// A FullReason states why a handshake was full rather than a resumption. Its
// text is the API's enum value without its prefix.
type FullReason string

// All reasons.
const (
	// FullNoTicket: the server has sent no ticket yet.
	FullNoTicket FullReason = "NO_TICKET"
	// FullExpired: the ticket, or the certificate of its session, was too old.
	FullExpired FullReason = "EXPIRED"
	// FullUsedUp: every ticket was already in use.
	FullUsedUp FullReason = "USED_UP"
	// FullCredentialsChanged: only the replaced Client had sessions.
	FullCredentialsChanged FullReason = "CREDENTIALS_CHANGED"
	// FullRefused: the server rejected the offered session, or a resumed session
	// failed verification and all others were dropped.
	FullRefused FullReason = "REFUSED"
	// FullReuseOff: ClientOptions.NoSessionReuse.
	FullReuseOff FullReason = "REUSE_OFF"
	// FullFlushed: the sessions were dropped by Client.Flush.
	FullFlushed FullReason = "FLUSHED"
)

// SessionStats counts the successful handshakes of one Client.
type SessionStats struct {
	// Resumed is the number of resumptions.
	Resumed uint64
	// Full is the number of full handshakes, by reason.
	Full map[FullReason]uint64
	// Reported is the number of failures that VerifyReportOnly ignored, by reason;
	// one handshake may have several.
	Reported map[Reason]uint64
}

// counters holds the counts of a Client.
type counters struct {
	mu    sync.Mutex
	stats SessionStats
}

// count counts a handshake; full is empty for a resumption.
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
