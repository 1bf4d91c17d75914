package access

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Policy gives roles to subjects. It is immutable. A nil Policy makes every caller an
// admin. Any other Policy gives callers without a role no rights.
type Policy struct {
	roles map[string]adminv1.Role // by subject in canonical form
}

// roleNames are the names of roles in a policy.
var roleNames = map[string]adminv1.Role{
	"viewer":   adminv1.Role_ROLE_VIEWER,
	"operator": adminv1.Role_ROLE_OPERATOR,
	"admin":    adminv1.Role_ROLE_ADMIN,
}

// Limits of a policy. The operator writes the file, so the limits only detect a wrong
// file.
const (
	maxPolicy  = 1 << 20 // bytes
	maxEntries = 10_000
)

// ParsePolicy reads a policy in YAML:
//
//	subjects:
//	  spiffe://corp/ci: operator
//	  DNS:dash.example: viewer
//	  gid:27: admin
//
// The error names every fault with its line.
func ParsePolicy(text []byte) (*Policy, error) {
	if len(text) > maxPolicy {
		return nil, fmt.Errorf("has %d bytes: at most %d are allowed", len(text), maxPolicy)
	}
	var file struct {
		Subjects yaml.Node `yaml:"subjects"`
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New(`is empty: it must hold "subjects:"`)
		}
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("holds more than one document")
	}
	if file.Subjects.Kind != yaml.MappingNode {
		return nil, errors.New(`must hold "subjects:", a mapping of subjects to roles`)
	}
	return policyOf(&file.Subjects)
}

func policyOf(subjects *yaml.Node) (*Policy, error) {
	p := &Policy{roles: map[string]adminv1.Role{}}
	lines := map[string]int{}
	var faults []error
	fault := func(n *yaml.Node, format string, args ...any) {
		faults = append(faults, fmt.Errorf("line %d: %s", n.Line, fmt.Sprintf(format, args...)))
	}
	if n := len(subjects.Content) / 2; n > maxEntries {
		return nil, fmt.Errorf("subjects: has %d entries: at most %d are allowed", n, maxEntries)
	}
	for i := 0; i+1 < len(subjects.Content); i += 2 {
		key, value := subjects.Content[i], subjects.Content[i+1]
		subject, err := ParseSubject(key.Value)
		role, known := roleNames[value.Value]
		switch before := lines[subject]; {
		case key.Kind != yaml.ScalarNode:
			fault(key, "a subject must be text")
		case err != nil:
			fault(key, "subject %q %v", key.Value, err)
		case before > 0:
			fault(key, "subject %q has a role on line %d already", key.Value, before)
		case value.Kind != yaml.ScalarNode || !known:
			fault(value, "the role of %q must be viewer, operator or admin", key.Value)
		default:
			p.roles[subject], lines[subject] = role, key.Line
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return p, nil
}

// Role returns the highest role that the policy assigns to a caller, or
// ROLE_UNSPECIFIED if it assigns no role.
func (p *Policy) Role(c *Caller) adminv1.Role {
	if p == nil || c.Owner {
		return adminv1.Role_ROLE_ADMIN
	}
	role := adminv1.Role_ROLE_UNSPECIFIED
	for _, s := range c.Subjects {
		role = max(role, p.roles[s])
	}
	return role
}
