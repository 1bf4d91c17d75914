package snapshot

import (
	"fmt"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// maxNamed bounds how many routes, or values of a condition, an explanation
// names.
const maxNamed = 5

// explainMatch explains which of a route's conditions hold, and which routes it
// precedes.
func (l *Listener) explanation(msg *adminv1.Route, ask route.Request) string {
	held := conditions(msg, ask)
	text := fmt.Sprintf("route %q matches: it has no conditions", msg.GetName())
	if len(held) > 0 {
		var parts []string
		for _, c := range held {
			parts = append(parts, c.text)
		}
		text = fmt.Sprintf("route %q matches: %s", msg.GetName(), strings.Join(parts, ", "))
	}
	var also []string
	for r := range l.uses.localRoutes() {
		if r.msg != msg && len(also) <= maxNamed && firstMismatch(r.msg, ask) == "" {
			also = append(also, fmt.Sprintf("%q", r.msg.GetName()))
		}
	}
	switch {
	case len(also) > maxNamed:
		text += fmt.Sprintf("; it is more specific than %s and others, which match too", strings.Join(also[:maxNamed], ", "))
	case len(also) == 1:
		text += fmt.Sprintf("; it is more specific than %s, which matches too", also[0])
	case len(also) > 1:
		text += fmt.Sprintf("; it is more specific than %s, which match too", strings.Join(also, ", "))
	}
	return text
}

// explainNoMatch explains, for the first routes, which condition does not hold.
func (l *Listener) explainNoMatch(ask route.Request) string {
	if l.uses.routes.Len() == 0 {
		return "the listener has no routes"
	}
	var mismatches []string
	for _, r := range l.uses.routes.All() {
		if len(mismatches) == maxNamed {
			mismatches = append(mismatches, fmt.Sprintf("and %d more", l.uses.routes.Len()-maxNamed))
			break
		}
		reason := firstMismatch(r.msg, ask)
		if r.elsewhere {
			reason = "the route applies only to other gateways"
		}
		mismatches = append(mismatches, fmt.Sprintf("not %q: %s", r.msg.GetName(), reason))
	}
	return "no route matches (" + strings.Join(mismatches, "; ") + ")"
}

func firstMismatch(msg *adminv1.Route, ask route.Request) string {
	for _, c := range conditions(msg, ask) {
		if !c.holds {
			return c.text
		}
	}
	return ""
}

// A condition is one condition of a route, and whether it holds.
type condition struct {
	holds bool
	text  string
}

// conditions returns each condition of a route. Each is evaluated by a table that
// holds only that condition, so that it means the same here as for traffic.
func conditions(msg *adminv1.Route, ask route.Request) []condition {
	whole := rule(msg, struct{}{})
	var out []condition
	add := func(r route.Rule[struct{}], is, isNot string) {
		t, err := route.New([]route.Rule[struct{}]{r})
		if err != nil {
			return // cannot happen: the table of a live route was valid
		}
		_, ok := t.Match(ask)
		text := is
		if !ok {
			text = isNot
		}
		out = append(out, condition{ok, text})
	}
	if hosts := whole.Hosts; len(hosts) > 0 {
		all := bounded(hosts)
		add(route.Rule[struct{}]{Hosts: hosts}, fmt.Sprintf("the host %q matches %s", ask.Host, all), fmt.Sprintf("the host %q does not match %s", ask.Host, all))
	}
	if p := whole.Path; p.Kind != route.PathNone {
		is := map[route.PathKind]string{route.PathExact: "is", route.PathPrefix: "begins with", route.PathRegex: "matches the expression"}[p.Kind]
		isNot := map[route.PathKind]string{route.PathExact: "is not", route.PathPrefix: "does not begin with", route.PathRegex: "does not match the expression"}[p.Kind]
		add(route.Rule[struct{}]{Path: p}, fmt.Sprintf("the path %.200q %s %.200q", ask.Path, is, p.Value), fmt.Sprintf("the path %.200q %s %.200q", ask.Path, isNot, p.Value))
	}
	if c := whole.Client; c != nil {
		id := clientText(c)
		isNot := "the client's certificate does not match " + id
		if ask.Client == nil {
			isNot = "the client has no verified certificate, and must match " + id
		}
		add(route.Rule[struct{}]{Client: c}, "the client's certificate matches "+id, isNot)
	}
	if m := whole.Methods; len(m) > 0 {
		add(route.Rule[struct{}]{Methods: m}, fmt.Sprintf("the method %.40q is one of %s", ask.Method, bounded(m)), fmt.Sprintf("the method %.40q is not one of %s", ask.Method, bounded(m)))
	}
	if scheme := whole.NotScheme; scheme != "" {
		add(route.Rule[struct{}]{NotScheme: scheme}, fmt.Sprintf("the scheme is not %s yet", scheme), fmt.Sprintf("the scheme is %s already", scheme))
	}
	for _, h := range whole.Headers {
		add(route.Rule[struct{}]{Headers: []route.Header{h}}, fmt.Sprintf("the header %.100s matches", h), fmt.Sprintf("the header %.100s does not match", h))
	}
	return out
}

// clientText describes a condition on the client's certificate.
func clientText(c *route.Identity) string {
	var parts []string
	if len(c.SANs) > 0 {
		parts = append(parts, bounded(c.SANs))
	}
	if len(c.Fingerprints) > 0 {
		parts = append(parts, "SHA-256 "+bounded(c.Fingerprints))
	}
	if c.Issuer != "" {
		parts = append(parts, fmt.Sprintf("issuer %.200q", c.Issuer))
	}
	return strings.Join(parts, " and ")
}

// bounded lists the first names and the number of the rest.
func bounded(names []string) string {
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}
