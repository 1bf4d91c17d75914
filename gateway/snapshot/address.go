package snapshot

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// maxUnixPath is the maximum length of a unix socket's path (sun_path without
// its NUL).
const maxUnixPath = 107

// splitUnix returns the path of a "unix:" address, or the problem with it.
func splitUnix(address string) (path string, unix bool, problem string) {
	path, unix = strings.CutPrefix(address, "unix:")
	switch {
	case !unix:
	case !filepath.IsAbs(path):
		problem = fmt.Sprintf("is %q; after unix: it must have an absolute path, as in unix:/run/app.sock", address)
	case len(path) > maxUnixPath:
		problem = fmt.Sprintf("is a path of %d bytes; the path of a unix socket has at most %d", len(path), maxUnixPath)
	case strings.ContainsRune(path, 0):
		problem = "holds a NUL byte"
	}
	return path, unix, problem
}

// listenAddress checks an address to listen on. It returns the network and address
// in package net's form.
func listenAddress(address string) (network, addr, problem string) {
	const right = "it must be IP:port, :port for every address, or unix:/path"
	if address == "" {
		return "", "", "must be set: IP:port, :port for every address, or unix:/path"
	}
	if path, unix, problem := splitUnix(address); unix {
		return "unix", filepath.Clean(path), problem
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", "", fmt.Sprintf("is %q; %s", address, right)
	}
	n, ok := parsePort(port)
	if !ok {
		return "", "", fmt.Sprintf("has the port %q; it must be a number from 0 to 65535", port)
	}
	switch {
	case host == "":
	case host == "localhost":
		host = "127.0.0.1"
	default:
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return "", "", fmt.Sprintf("has the host %q; to listen it must be an IP address, localhost, or empty for every address", host)
		}
		host = ip.String()
	}
	return "tcp", net.JoinHostPort(host, strconv.Itoa(n)), ""
}

var hostLabel = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)

// isHostName reports whether s can be a DNS name.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if !hostLabel.MatchString(l) {
			return false
		}
	}
	// A last label of digits only is a mistyped IP address (RFC 3696 section 2).
	_, err := strconv.Atoi(labels[len(labels)-1])
	return err != nil
}

// IsHost reports whether s is a DNS name or an IP address.
func IsHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return isHostName(s)
}

// dialAddress checks the address of an endpoint. It returns the host to verify the
// certificate against, which is empty for a unix socket.
func dialAddress(address string) (network, addr, host, problem string) {
	const right = "it must be host:port or unix:/path"
	if address == "" {
		return "", "", "", "must be set: host:port or unix:/path"
	}
	if path, unix, problem := splitUnix(address); unix {
		return "unix", path, "", problem
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", "", "", fmt.Sprintf("is %q; %s", address, right)
	}
	if n, ok := parsePort(port); !ok || n == 0 {
		return "", "", "", fmt.Sprintf("has the port %q; it must be a number from 1 to 65535", port)
	}
	if !IsHost(host) {
		return "", "", "", fmt.Sprintf("has the host %q; it must be a DNS name or an IP address (IPv6 in brackets)", host)
	}
	return "tcp", address, strings.TrimSuffix(host, "."), ""
}

func parsePort(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err == nil && !strings.HasPrefix(s, "+")
}

// overlap reports whether two listeners cannot use these addresses at the same
// time.
func overlap(networkA, a, networkB, b string) bool {
	if networkA != networkB {
		return false
	}
	if networkA == "unix" {
		return a == b
	}
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	if portA != portB || portA == "0" {
		return false
	}
	return hostA == hostB || includesHost(hostA, hostB) || includesHost(hostB, hostA)
}

// includesHost reports whether listening on all includes host. An empty host and "::"
// include IPv4; 0.0.0.0 is IPv4 only.
func includesHost(all, host string) bool {
	switch all {
	case "", "::":
		return true
	case "0.0.0.0":
		ip, err := netip.ParseAddr(host)
		return host == "" || err == nil && (ip.Is4() || ip.Is4In6() || ip == netip.IPv6Unspecified())
	}
	return false
}
