package access

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// ParseSubject returns a subject of a policy in canonical form, so that two subjects are
// the same caller exactly if their texts are equal. Subjects are "uid:1000" and
// "gid:1000" of callers on this machine, and "spiffe://corp/ci", "URI:…",
// "DNS:ops.example", "IP:10.0.0.1", "email:ops@corp.example", "CN=ops" and
// "sha256:<fingerprint>" of client certificates. Nothing in a subject is a wildcard.
func ParseSubject(s string) (string, error) {
	if cn, ok := strings.CutPrefix(s, "CN="); ok {
		if cn == "" {
			return "", fmt.Errorf("holds no common name")
		}
		return s, nil
	}
	kind, value, _ := strings.Cut(s, ":")
	switch kind {
	case "uid", "gid":
		id, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return "", fmt.Errorf("must be %s: and a number, as `id` prints it", kind)
		}
		return kind + ":" + decimal(uint32(id)), nil
	case "sha256":
		plain := strings.ToLower(strings.ReplaceAll(value, ":", ""))
		if raw, err := hex.DecodeString(plain); err != nil || len(raw) != 32 {
			return "", fmt.Errorf("must be sha256: and 64 hexadecimal digits, with or without colons")
		}
		return "sha256:" + plain, nil
	case "DNS", "URI", "IP", "email", "spiffe":
		sans, err := certs.ParseSANs([]string{s})
		if err != nil {
			return "", err
		}
		// Other URIs keep their prefix: a certificate with the URI "uid:0" is not root.
		if strings.HasPrefix(sans[0].Value, "spiffe://") {
			return sans[0].Value, nil
		}
		return sans[0].String(), nil
	}
	return "", fmt.Errorf("must begin with one of spiffe://, URI:, DNS:, IP:, email:, CN=, sha256:, uid: and gid: (a kind of name)")
}
