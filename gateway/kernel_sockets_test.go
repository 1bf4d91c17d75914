package gateway

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// kernelSockets returns the kernel's IPv4 TCP sockets, as "local remote", and whether
// each is established. It runs ss, or reads /proc/net/tcp if ss is missing. It returns
// nil if neither exists.
func kernelSockets(t *testing.T) map[string]bool {
	t.Helper()
	if _, err := exec.LookPath("ss"); err == nil {
		text, err := exec.Command("ss", "-4Htna").Output()
		if err != nil {
			t.Fatal("ss: ", err)
		}
		return parseSS(string(text))
	}
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil
	}
	return parseProc(string(text))
}

func parseSS(text string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(text) {
		// The fields are the state, two queues and two addresses.
		if f := strings.Fields(line); len(f) >= 5 {
			out[f[3]+" "+f[4]] = f[0] == "ESTAB"
		}
	}
	return out
}

func parseProc(text string) map[string]bool {
	const established = "01"
	out := map[string]bool{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 4 && strings.HasSuffix(f[0], ":") {
			out[procAddress(f[1])+" "+procAddress(f[2])] = f[3] == established
		}
	}
	return out
}

// procAddress returns the address that /proc/net/tcp writes as "0100007F:1F90".
func procAddress(text string) string {
	host, port, _ := strings.Cut(text, ":")
	ip, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(ip) != 4 {
		return fmt.Sprintf("(%s)", text)
	}
	slices.Reverse(ip) // the kernel prints the bytes in this machine's order
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip)), uint16(n)).String()
}

func TestBothSourcesOfSocketsAreRead(t *testing.T) {
	want := "127.0.0.1:8080 10.0.0.2:51234"
	if got := parseSS("ESTAB 0 0 127.0.0.1:8080 10.0.0.2:51234\nLISTEN 0 1 0.0.0.0:1 0.0.0.0:*\n"); !got[want] || len(got) != 2 {
		t.Errorf("ss: %v", got)
	}
	if got := parseProc("  sl  local_address rem_address   st\n   0: 0100007F:1F90 0200000A:C822 01 00000000:00000000\n"); !got[want] || len(got) != 1 {
		t.Errorf("/proc/net/tcp: %v", got)
	}
}
