package resolve

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// A target is a host to look up.
type target struct {
	name   string // without a trailing dot
	lookup string // the name for the resolver
	port   uint16
	weight int
	backup bool
}

// maxWeight is the maximum weight of an SRV record and of an endpoint.
const maxWeight = 65535

// targetsOf returns at most MaxAddresses targets of SRV records (RFC 2782),
// sorted: targets with the lowest priority number first, and all others as
// backups.
func targetsOf(records []*net.SRV) []target {
	records = slices.DeleteFunc(slices.Clone(records), func(r *net.SRV) bool {
		return r.Target == "." || r.Target == "" || r.Port == 0 // "." means that the service does not exist
	})
	slices.SortFunc(records, func(a, b *net.SRV) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), strings.Compare(a.Target, b.Target), cmp.Compare(a.Port, b.Port))
	})
	var out []target
	for _, r := range records[:min(len(records), MaxAddresses)] {
		name := strings.ToLower(strings.TrimSuffix(r.Target, "."))
		out = append(out, target{
			name: name, lookup: name + ".", port: r.Port, weight: max(int(r.Weight), 1), backup: r.Priority > records[0].Priority,
		})
	}
	return out
}

// addressesOf returns the addresses of targets. The addresses of a target share
// its weight, so that its traffic does not depend on their number.
func addressesOf(targets []target, hosts [][]netip.Addr) []Address {
	factor, heaviest := 1, 1
	for i, addrs := range hosts {
		if len(addrs) > 0 {
			factor = min(factor*len(addrs)/gcd(factor, len(addrs)), maxWeight)
			heaviest = max(heaviest, targets[i].weight)
		}
	}
	factor = min(factor, maxWeight/heaviest)
	var out []Address
	for i, addrs := range hosts {
		t, n := targets[i], len(addrs)
		for _, a := range addrs {
			out = append(out, Address{
				At: netip.AddrPortFrom(a, t.port), Name: t.name, Weight: max((t.weight*factor+n/2)/n, 1), Backup: t.backup,
			})
		}
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// sorted returns at most MaxAddresses addresses without duplicates, in an
// order independent of the input, backups last.
func sorted(all []Address) []Address {
	slices.SortStableFunc(all, func(a, b Address) int {
		return cmp.Or(compareBool(a.Backup, b.Backup), a.At.Compare(b.At), strings.Compare(a.Name, b.Name))
	})
	seen := make(map[netip.AddrPort]bool)
	all = slices.DeleteFunc(all, func(a Address) bool {
		known := seen[a.At]
		seen[a.At] = true
		return known
	})
	return all[:min(len(all), MaxAddresses)]
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
