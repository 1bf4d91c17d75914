package manifest

import (
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"
	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Kinds returns every kind in the order of adminv1.Resource.
func Kinds() []adminv1.Kind {
	return []adminv1.Kind{
		adminv1.Kind_KIND_LISTENER, adminv1.Kind_KIND_ROUTE, adminv1.Kind_KIND_UPSTREAM,
		adminv1.Kind_KIND_CERTIFICATE, adminv1.Kind_KIND_TRUST_BUNDLE,
	}
}

// KindName returns the name of kind in a document: "TrustBundle".
func KindName(kind adminv1.Kind) string {
	fd := resourceField(kind)
	if fd == nil {
		return kind.String()
	}
	return string(fd.Message().Name())
}

// KindNames returns the names of all kinds.
func KindNames() []string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, KindName(k))
	}
	return names
}

// ParseKind parses a kind in singular or plural, in any case, with or without separators:
// Listener, listeners, trust_bundle. The error lists the valid kinds.
func ParseKind(s string) (adminv1.Kind, error) {
	norm := normalize(s)
	var names []string
	for _, k := range Kinds() {
		name := normalize(KindName(k))
		if norm == name || norm == name+"s" {
			return k, nil
		}
		names = append(names, KindName(k))
	}
	hint := ""
	if near := nearest(strings.TrimSuffix(norm, "s"), names); near != "" {
		hint = fmt.Sprintf("; did you mean %s?", near)
	}
	return 0, fmt.Errorf("%s is not a kind; must be one of %s%s", quote(s), strings.Join(names, ", "), hint)
}

// resourceField returns the field of adminv1.Resource for kind, or nil if the kind is not
// valid. The field has the name of the enum value.
func resourceField(kind adminv1.Kind) protoreflect.FieldDescriptor {
	name := strings.ToLower(strings.TrimPrefix(kind.String(), "KIND_"))
	return (*adminv1.Resource)(nil).ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))
}

// normalize removes case and separators from a name.
func normalize(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(s))
}

// nearest returns the candidate that the user most likely meant by s, or "".
func nearest(s string, candidates []string) string {
	if len(s) > 64 {
		return ""
	}
	best, bestDistance := "", 1+len(s)/3
	for _, c := range candidates {
		if d := levenshtein.ComputeDistance(normalize(s), normalize(c)); d < bestDistance || d == bestDistance && best == "" {
			best, bestDistance = c, d
		}
	}
	return best
}
