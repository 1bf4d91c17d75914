package inventory

import (
	"context"
	"fmt"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// expiryDays are the thresholds, in days before a certificate expires, that each
// cause an event. 0 is the expiry itself.
var expiryDays = []int{30, 14, 7, 1, 0}

// checkExpiryEvery is how often certificates are checked. They are also checked
// after each write, but the certificates of upstreams change without one.
const checkExpiryEvery = time.Hour

// expiry remembers which threshold was reported for each certificate, so that
// each is reported once. It belongs to one goroutine.
type expiry struct {
	reported map[string]int // the lowest of expiryDays that was reported
}

// Watch reports each certificate that expires soon or has expired, until ctx ends.
// changed returns a channel that is closed at the next revision. It must not be
// closed otherwise before ctx ends.
func (v *Inventory) Watch(ctx context.Context, changed func() <-chan struct{}, report func(*adminv1.Event)) {
	tick := time.NewTicker(checkExpiryEvery)
	defer tick.Stop()
	var e expiry
	for {
		next, began := changed(), time.Now()
		for _, event := range e.due(v.Certificates(), time.Now()) {
			report(event)
		}
		// However many changes follow, the checks use at most a hundredth of a
		// processor: with ten thousand certificates one check takes long.
		rest := time.NewTimer(100 * time.Since(began))
		select {
		case <-ctx.Done():
			rest.Stop()
			return
		case <-rest.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-next:
		}
	}
}

// due returns an event for each certificate that has passed a threshold which was
// not reported yet.
func (e *expiry) due(certificates []*adminv1.CertificateInUse, now time.Time) []*adminv1.Event {
	reported := map[string]int{}
	var out []*adminv1.Event
	for _, c := range certificates {
		key := fmt.Sprintf("%d/%s/%s/%s/%v", c.GetUse(), c.GetName(), c.GetEndpoint(), c.GetInfo().GetSha256Fingerprint(), c.GetInfo().GetNotAfter())
		left := c.GetInfo().GetNotAfter().AsTime().Sub(now)
		level := -1
		for _, days := range expiryDays {
			if left <= time.Duration(days)*24*time.Hour {
				level = days
			}
		}
		before, known := e.reported[key]
		switch {
		case level < 0:
			continue
		case known && before <= level:
			reported[key] = before
			continue
		}
		reported[key] = level
		out = append(out, expiryEvent(c, left))
	}
	e.reported = reported
	return out
}

var useKinds = map[adminv1.CertificateUse]adminv1.Kind{
	adminv1.CertificateUse_CERTIFICATE_USE_OWN:      adminv1.Kind_KIND_CERTIFICATE,
	adminv1.CertificateUse_CERTIFICATE_USE_TRUST:    adminv1.Kind_KIND_TRUST_BUNDLE,
	adminv1.CertificateUse_CERTIFICATE_USE_CRL:      adminv1.Kind_KIND_TRUST_BUNDLE,
	adminv1.CertificateUse_CERTIFICATE_USE_UPSTREAM: adminv1.Kind_KIND_UPSTREAM,
}

func expiryEvent(c *adminv1.CertificateInUse, left time.Duration) *adminv1.Event {
	event := &adminv1.Event{
		Type: adminv1.EventType_EVENT_TYPE_EXPIRY, Kind: useKinds[c.GetUse()], Name: c.GetName(), Endpoint: c.GetEndpoint(), Count: 1,
	}
	end := c.GetInfo().GetNotAfter().AsTime().UTC().Format(time.RFC3339)
	subject, verb, past := c.GetInfo().GetSubject(), "expires", "expired"
	if c.GetUse() == adminv1.CertificateUse_CERTIFICATE_USE_CRL {
		verb, past = "is due for its next update", "was due for its next update"
	}
	if left <= 0 {
		event.Message = fmt.Sprintf("%s %s on %s", subject, past, end)
		event.Reason = adminv1.Reason_REASON_EXPIRED
		if c.GetUse() == adminv1.CertificateUse_CERTIFICATE_USE_CRL {
			event.Reason = adminv1.Reason_REASON_CRL_EXPIRED
		}
	} else {
		event.Message = fmt.Sprintf("%s %s on %s, in %d days", subject, verb, end, int(left/(24*time.Hour)))
	}
	return event
}
