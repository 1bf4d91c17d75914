package access

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// ParseSubject returns a subject of a policy in canonical form, so that two subjects
// match the same caller exactly if their texts are equal. Subjects are "uid:1000" and
// "gid:1000" of callers on this machine, and "spiffe://corp/ci", "URI:…",
// "DNS:ops.example", "IP:10.0.0.1", "email:ops@corp.example", "CN=ops" and
// "sha256:<fingerprint>" of client certificates. Subjects have no wildcards.
func ParseSubject(s string) (string, error) {
	if cn, ok := strings.CutPrefix(s, "CN="); ok {
		if cn == "" {
			return "", errors.New("holds no common name")
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
		fingerprint, ok := certs.ParseFingerprint(value)
		if !ok {
			return "", errors.New("must be sha256: and 64 hexadecimal digits, with or without colons")
		}
		return "sha256:" + fingerprint, nil
	case "DNS", "URI", "IP", "email", "spiffe":
		san, err := certs.ParseSAN(s)
		if err != nil {
			return "", err
		}
		// Other URIs keep their prefix: a certificate with the URI "uid:0" is not root.
		if strings.HasPrefix(san.Value, "spiffe://") {
			return san.Value, nil
		}
		return san.String(), nil
	}
	return "", errors.New("must begin with one of spiffe://, URI:, DNS:, IP:, email:, CN=, sha256:, uid: and gid: (a kind of name)")
}
