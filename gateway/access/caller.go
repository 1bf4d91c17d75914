package access

import (
	"crypto/x509"
	"slices"
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/certs"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Caller is an authenticated peer of the admin API.
type Caller struct {
	// Principal is its name in logs and revisions: "uid:0" or "cert:CN=ops".
	Principal string
	Transport adminv1.Transport

	// Subjects are the names by which a policy may give it a role, in canonical form.
	Subjects []string

	// Owner says that the caller is root, or the user that runs the gateway. Both could
	// replace the policy, so they are always admins: no policy can lock them out.
	Owner bool
}

// LocalSubjects returns the subjects of a process on this machine: its user and its
// groups.
func LocalSubjects(uid uint32, gids []uint32) []string {
	subjects := []string{"uid:" + decimal(uid)}
	for _, gid := range gids {
		if s := "gid:" + decimal(gid); !slices.Contains(subjects, s) {
			subjects = append(subjects, s)
		}
	}
	return subjects
}

func decimal(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

// maxSubjects bounds how many subject alternative names of a certificate are subjects.
const maxSubjects = 100

// CertificateSubjects returns the subjects of a verified client certificate: its subject
// alternative names, its common name, and its fingerprint.
func CertificateSubjects(leaf *x509.Certificate) []string {
	var subjects []string
	for _, san := range certs.SANsOf(leaf) {
		if s, err := ParseSubject(san.String()); err == nil && len(subjects) < maxSubjects {
			subjects = append(subjects, s)
		}
	}
	if cn := leaf.Subject.CommonName; cn != "" {
		subjects = append(subjects, "CN="+cn)
	}
	return append(subjects, "sha256:"+certs.FingerprintOf(leaf))
}
