package access

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Rights maps the full name of a method, such as
// "/drawbridge.admin.v1.AdminService/Apply", to the right that its caller needs.
type Rights map[string]adminv1.Right

// DeclaredRights returns the rights that the methods of services declare by the option
// (drawbridge.admin.v1.right). It fails if a method declares no right.
func DeclaredRights(services ...protoreflect.ServiceDescriptor) (Rights, error) {
	rights := Rights{}
	for _, service := range services {
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			right, _ := proto.GetExtension(m.Options(), adminv1.E_Right).(adminv1.Right)
			if right == adminv1.Right_RIGHT_UNSPECIFIED {
				return nil, fmt.Errorf("method %s declares no right: give it option (right)", m.FullName())
			}
			rights[fmt.Sprintf("/%s/%s", service.FullName(), m.Name())] = right
		}
	}
	return rights, nil
}

// RightsOf returns the rights of a role.
func RightsOf(role adminv1.Role) []adminv1.Right {
	switch role {
	case adminv1.Role_ROLE_VIEWER:
		return []adminv1.Right{adminv1.Right_RIGHT_READ}
	case adminv1.Role_ROLE_OPERATOR:
		return []adminv1.Right{adminv1.Right_RIGHT_READ, adminv1.Right_RIGHT_WRITE, adminv1.Right_RIGHT_OPERATE}
	case adminv1.Role_ROLE_ADMIN:
		return []adminv1.Right{adminv1.Right_RIGHT_READ, adminv1.Right_RIGHT_WRITE, adminv1.Right_RIGHT_SECRET, adminv1.Right_RIGHT_OPERATE}
	}
	return nil
}

// Has reports whether a role has a right.
func Has(role adminv1.Role, right adminv1.Right) bool {
	return slices.Contains(RightsOf(role), right)
}

// MayWrite reports whether a role may change resources of a kind. Only admins may
// replace the keys and the anchors that all other security depends on.
func MayWrite(role adminv1.Role, kind adminv1.Kind) bool {
	switch kind {
	case adminv1.Kind_KIND_CERTIFICATE, adminv1.Kind_KIND_TRUST_BUNDLE:
		return role == adminv1.Role_ROLE_ADMIN
	}
	return Has(role, adminv1.Right_RIGHT_WRITE)
}
