package certs

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// groupNames are the key-exchange groups of crypto/tls in its order of
// preference. The usual name comes first, then the names of OpenSSL, nginx and
// the IANA registry.
var groupNames = []struct {
	id    tls.CurveID
	names []string
}{
	{tls.X25519MLKEM768, []string{"X25519MLKEM768"}},
	{tls.SecP256r1MLKEM768, []string{"SecP256r1MLKEM768"}},
	{tls.SecP384r1MLKEM1024, []string{"SecP384r1MLKEM1024"}},
	{tls.X25519, []string{"X25519"}},
	{tls.CurveP256, []string{"P-256", "secp256r1", "prime256v1"}},
	{tls.CurveP384, []string{"P-384", "secp384r1"}},
	{tls.CurveP521, []string{"P-521", "secp521r1"}},
}

// ParseGroups returns the key-exchange groups with the given names, without
// duplicates. No names return nil, which means Go's list. The error is Faults,
// one for each unknown name, with the field "[i]". The order of the names has
// no effect: crypto/tls has its own order of preference.
func ParseGroups(names []string) ([]tls.CurveID, error) {
	var bad Faults
	var ids []tls.CurveID
	seen := make(map[tls.CurveID]bool)
	for i, name := range names {
		id, ok := findGroup(name)
		if !ok {
			bad.add(fmt.Sprintf("[%d]", i), "%q is not a key-exchange group: want one of %s", safetext.Printable(name, 60), allGroupNames())
			continue
		}
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	return ids, nil
}

func findGroup(name string) (tls.CurveID, bool) {
	for _, g := range groupNames {
		for _, n := range g.names {
			if strings.EqualFold(n, strings.TrimSpace(name)) {
				return g.id, true
			}
		}
	}
	return 0, false
}

func allGroupNames() string {
	var names []string
	for _, g := range groupNames {
		names = append(names, g.names[0])
	}
	return strings.Join(names, ", ")
}

// inOrder returns the allowed groups, or every group if allowed is empty, in
// the order of crypto/tls, which makes a key share for the first.
func inOrder(allowed []tls.CurveID) []tls.CurveID {
	var ordered []tls.CurveID
	for _, g := range groupNames {
		if len(allowed) == 0 || slices.Contains(allowed, g.id) {
			ordered = append(ordered, g.id)
		}
	}
	return ordered
}

// groupsFrom returns the groups to offer to a server that is known to choose
// chosen, or nil if that excludes no group.
func groupsFrom(ordered []tls.CurveID, chosen tls.CurveID) []tls.CurveID {
	if i := slices.Index(ordered, chosen); i > 0 {
		return ordered[i:len(ordered):len(ordered)]
	}
	return nil
}
