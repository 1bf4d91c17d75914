package handover

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	namePrefix = "drawbridge"

	// maxName is the maximum length of a descriptor's name in systemd's store.
	maxName = 255
)

// A Name identifies a listening socket to the process that inherits it.
type Name struct {
	Network string // "tcp" or "unix"
	Address string // the configured address; with port 0 the kernel has chosen the port
	Owner   string // the listener's name, or the part of the gateway
	Socket  uint64 // distinguishes sockets of the same address, such as port 0
	File    string // identifies the file of a unix socket
}

// String returns the name in the form that systemd allows: printable ASCII without
// colons.
func (n Name) String() string {
	return strings.Join([]string{namePrefix, escape(n.Network), escape(n.Address), escape(n.Owner), strconv.FormatUint(n.Socket, 10), escape(n.File)}, ";")
}

// ParseName parses a name from String. It returns false for any other name.
func ParseName(text string) (Name, bool) {
	parts := strings.Split(text, ";")
	if len(parts) != 6 || parts[0] != namePrefix {
		return Name{}, false
	}
	var n Name
	for i, to := range []*string{1: &n.Network, 2: &n.Address, 3: &n.Owner, 5: &n.File} {
		if to == nil {
			continue
		}
		var ok bool
		if *to, ok = unescape(parts[i]); !ok {
			return Name{}, false
		}
	}
	var err error
	n.Socket, err = strconv.ParseUint(parts[4], 10, 64)
	return n, err == nil
}

func escape(text string) string {
	var out strings.Builder
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || c == ':' || c == ';' || c == '%' {
			fmt.Fprintf(&out, "%%%02X", c)
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}

func unescape(text string) (string, bool) {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			out.WriteByte(text[i])
			continue
		}
		if i+3 > len(text) {
			return "", false
		}
		c, err := strconv.ParseUint(text[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		out.WriteByte(byte(c))
		i += 2
	}
	return out.String(), true
}
