package admin

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drawbridge-gateway/drawbridge/gateway/access"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// rights returns the right that each method needs. A method that is missing cannot be
// called. It panics if a method in the .proto file declares no right.
func rights() access.Rights {
	var services []protoreflect.ServiceDescriptor
	for _, f := range []protoreflect.FileDescriptor{
		adminv1.File_drawbridge_admin_v1_admin_service_proto,
		adminv1.File_drawbridge_admin_v1_status_service_proto,
		adminv1.File_drawbridge_admin_v1_diagnostics_service_proto,
		adminv1.File_drawbridge_admin_v1_fleet_service_proto,
	} {
		for i := range f.Services().Len() {
			services = append(services, f.Services().Get(i))
		}
	}
	all, err := access.DeclaredRights(services...)
	if err != nil {
		panic(err)
	}
	// gRPC's own services have no options.
	maps.Copy(all, access.Rights{
		grpc_health_v1.Health_Check_FullMethodName:                             adminv1.Right_RIGHT_READ,
		grpc_health_v1.Health_List_FullMethodName:                              adminv1.Right_RIGHT_READ,
		grpc_health_v1.Health_Watch_FullMethodName:                             adminv1.Right_RIGHT_READ,
		reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:      adminv1.Right_RIGHT_READ,
		reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: adminv1.Right_RIGHT_READ,
	})
	return all
}

// authorize returns nil if the caller has the right that a method needs, and a channel
// that is closed when the answer may have changed.
func (s *Server) authorize(ctx context.Context, method string) (changed <-chan struct{}, err error) {
	from, ok := callerOf(ctx)
	if !ok {
		return nil, statusWith(codes.Unauthenticated, "UNAUTHENTICATED", "the caller is not authenticated").Err()
	}
	// Match exact names only: in other servers, a name that differed only in a slash
	// once passed the check (CVE-2026-33186).
	right, known := s.rights[method]
	if !known {
		return nil, errNoMethod()
	}
	role, changed := s.access.Role(from.Caller)
	if !access.Has(role, right) {
		return nil, errDenied(from, role, "%s, which %s needs", right, shortMethod(method))
	}
	return changed, nil
}

// mayProbe returns nil if the caller may make a probe. Every caller who may read may
// probe an upstream as it is configured. Choosing addresses or requests counts as
// sending traffic.
func (s *Server) mayProbe(ctx context.Context, req *adminv1.ProbeUpstreamRequest) error {
	if req.GetUpstream() == nil && req.GetRequest() == "" {
		return nil
	}
	from, role := s.roleOf(ctx)
	if access.Has(role, adminv1.Right_RIGHT_OPERATE) {
		return nil
	}
	return errDenied(from, role, "RIGHT_OPERATE, which is needed for a probe of an upstream given in full, or with a request")
}

// mayWrite returns nil if the caller may change all resources that an edit names.
func (s *Server) mayWrite(ctx context.Context, e *store.Edit) error {
	from, role := s.roleOf(ctx)
	allowed := true
	for _, p := range e.Puts {
		allowed = allowed && access.MayWrite(role, store.KindOf(p.Resource))
	}
	for _, d := range e.Deletes {
		allowed = allowed && access.MayWrite(role, d.Kind)
	}
	if e.Prune != nil {
		for _, k := range e.Prune.Kinds {
			allowed = allowed && access.MayWrite(role, k)
		}
	}
	if allowed {
		return nil
	}
	return errDenied(from, role, "the right to change certificates and trust bundles, which this request needs")
}

// roleOf returns the authenticated caller of a call, and its current role.
func (s *Server) roleOf(ctx context.Context) (caller, adminv1.Role) {
	from, _ := callerOf(ctx)
	role, _ := s.access.Role(from.Caller)
	return from, role
}

// describe returns the API's form of a caller.
func (s *Server) describe(ctx context.Context) *adminv1.Caller {
	from, role := s.roleOf(ctx)
	return &adminv1.Caller{
		Principal: from.Principal, Transport: from.Transport, Role: role, Rights: access.RightsOf(role), Subjects: from.Subjects,
	}
}

// errDenied returns an error with the right that the caller lacks, and with the
// subjects to which a policy could give a role.
func errDenied(from caller, role adminv1.Role, format string, args ...any) error {
	has := "has no role, and so lacks"
	if role != adminv1.Role_ROLE_UNSPECIFIED {
		has = "has the role " + strings.ToLower(strings.TrimPrefix(role.String(), "ROLE_")) + ", which does not include"
	}
	text := fmt.Sprintf("%s %s %s. The policy can give a role to any of these names of the caller: %s",
		from.Principal, has, fmt.Sprintf(format, args...), strings.Join(first(from.Subjects, 10), ", "))
	return statusWith(codes.PermissionDenied, "PERMISSION_DENIED", sanitize(text, maxMessageText)).Err()
}

func shortMethod(method string) string { return method[strings.LastIndex(method, "/")+1:] }
