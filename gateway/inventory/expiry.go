package inventory

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// expiryDays are the thresholds, in days before a certificate expires, that each
// cause an event. 0 is the expiry itself.
var expiryDays = []int{30, 14, 7, 1, 0}

// checkExpiryEvery is how often all certificates are checked. A write checks only the
// certificates of the changed resources, so that its cost does not depend on their total
// number. The certificates that endpoints present can change without a write.
const checkExpiryEvery = time.Hour

// expiry remembers which thresholds were reported for each certificate, so that
// each is reported once. It belongs to one goroutine.
type expiry struct {
	// reported holds the lowest reported threshold, by resource and certificate.
	reported map[store.Ref]map[admin.CertificateKey]int
	checked  int // number of checked certificates, for tests
}

// Watch reports each certificate that expires soon or has expired, until ctx ends.
// changed returns a channel that is closed at the next revision. The channel must
// not be closed for another reason before ctx ends.
func (v *Inventory) Watch(ctx context.Context, changed func() <-chan struct{}, report func(*adminv1.Event)) {
	tick := time.NewTicker(checkExpiryEvery)
	defer tick.Stop()
	var e expiry
	var last *snapshot.Snapshot // nil: check everything
	for {
		next := changed()
		snap := v.live()
		var events []*adminv1.Event
		if last == nil {
			events = e.all(v.inUse(snap), time.Now())
		} else {
			events = e.some(snap, snap.ChangedMaterial(last), time.Now())
		}
		for _, event := range events {
			report(event)
		}
		last = snap
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			last = nil
		case <-next:
		}
	}
}

// inUse returns every certificate in use, in no particular order.
func (v *Inventory) inUse(snap *snapshot.Snapshot) []inUse {
	var g gathering
	for name, c := range snap.Certificates() {
		g.certificate(name, c)
	}
	for name, b := range snap.TrustBundles() {
		g.bundle(name, b)
	}
	g.adminService(v.admin)
	for _, u := range snap.Upstreams() {
		for _, s := range u.Live.Counts() {
			g.endpoint(u.Name, s)
		}
	}
	return g.found
}

// all returns an event for each certificate that has passed an unreported threshold.
// It forgets certificates that are no longer in use.
func (e *expiry) all(certificates []inUse, now time.Time) []*adminv1.Event {
	before := e.reported
	e.reported = map[store.Ref]map[admin.CertificateKey]int{}
	return e.due(certificates, before, now)
}

// some is like all, but only for the given certificates and trust bundles.
func (e *expiry) some(snap *snapshot.Snapshot, refs []store.Ref, now time.Time) []*adminv1.Event {
	before := map[store.Ref]map[admin.CertificateKey]int{}
	var g gathering
	for _, ref := range refs {
		before[ref] = e.reported[ref]
		delete(e.reported, ref)
		g.resource(snap, ref)
	}
	return e.due(g.found, before, now)
}

func (e *expiry) due(certificates []inUse, reported map[store.Ref]map[admin.CertificateKey]int, now time.Time) []*adminv1.Event {
	var passed []inUse
	for _, c := range certificates {
		e.checked++
		left := time.Unix(c.NotAfter, 0).Sub(now)
		level := -1
		for _, days := range expiryDays {
			if left <= time.Duration(days)*24*time.Hour {
				level = days
			}
		}
		if level < 0 {
			continue
		}
		before, known := reported[c.ref][c.CertificateKey]
		if !known || before > level {
			passed = append(passed, c)
		} else {
			level = before
		}
		if e.reported[c.ref] == nil {
			e.reported[c.ref] = map[admin.CertificateKey]int{}
		}
		e.reported[c.ref][c.CertificateKey] = level
	}
	slices.SortFunc(passed, func(a, b inUse) int { return a.Compare(b.CertificateKey) })
	var out []*adminv1.Event
	for _, c := range passed {
		out = append(out, expiryEvent(c, time.Unix(c.NotAfter, 0).Sub(now)))
	}
	return out
}

func expiryEvent(c inUse, left time.Duration) *adminv1.Event {
	event := &adminv1.Event{
		Type: adminv1.EventType_EVENT_TYPE_EXPIRY, Kind: c.ref.Kind, Name: c.Name, Endpoint: c.Endpoint, Count: 1,
	}
	end := time.Unix(c.NotAfter, 0).UTC().Format(time.RFC3339)
	subject, verb, past := c.info().GetSubject(), "expires", "expired"
	if c.Use == adminv1.CertificateUse_CERTIFICATE_USE_CRL {
		verb, past = "is due for its next update", "was due for its next update"
	}
	if left <= 0 {
		event.Message = fmt.Sprintf("%s %s on %s", subject, past, end)
		event.Reason = adminv1.Reason_REASON_EXPIRED
		if c.Use == adminv1.CertificateUse_CERTIFICATE_USE_CRL {
			event.Reason = adminv1.Reason_REASON_CRL_EXPIRED
		}
	} else {
		unit := "days"
		days := int(left / (24 * time.Hour))
		if days == 1 {
			unit = "day"
		}
		event.Message = fmt.Sprintf("%s %s on %s, in %d %s", subject, verb, end, days, unit)
	}
	return event
}
