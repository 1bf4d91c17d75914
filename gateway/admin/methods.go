package admin

import (
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// An access is what a method does to the desired state or to traffic.
type access int

const (
	denied access = iota // the zero value: no rule, no access
	read
	write
)

// accessTo returns the rule for a method by its exact full name. Every name that is
// not in the table is denied, even if it differs only in a slash.
func accessTo(fullMethod string) access {
	switch fullMethod {
	case adminv1.AdminService_PutListener_FullMethodName,
		adminv1.AdminService_DeleteListener_FullMethodName,
		adminv1.AdminService_PutRoute_FullMethodName,
		adminv1.AdminService_DeleteRoute_FullMethodName,
		adminv1.AdminService_PutUpstream_FullMethodName,
		adminv1.AdminService_DeleteUpstream_FullMethodName,
		adminv1.AdminService_PutCertificate_FullMethodName,
		adminv1.AdminService_DeleteCertificate_FullMethodName,
		adminv1.AdminService_PutTrustBundle_FullMethodName,
		adminv1.AdminService_DeleteTrustBundle_FullMethodName,
		adminv1.AdminService_Apply_FullMethodName,
		adminv1.AdminService_Rollback_FullMethodName,
		adminv1.AdminService_Confirm_FullMethodName,
		adminv1.DiagnosticsService_FlushSessions_FullMethodName,
		adminv1.DiagnosticsService_DrainConnections_FullMethodName:
		return write

	case adminv1.AdminService_GetListener_FullMethodName,
		adminv1.AdminService_ListListeners_FullMethodName,
		adminv1.AdminService_GetRoute_FullMethodName,
		adminv1.AdminService_ListRoutes_FullMethodName,
		adminv1.AdminService_GetUpstream_FullMethodName,
		adminv1.AdminService_ListUpstreams_FullMethodName,
		adminv1.AdminService_GetCertificate_FullMethodName,
		adminv1.AdminService_ListCertificates_FullMethodName,
		adminv1.AdminService_GetTrustBundle_FullMethodName,
		adminv1.AdminService_ListTrustBundles_FullMethodName,
		adminv1.AdminService_GetConfig_FullMethodName,
		adminv1.AdminService_WatchConfig_FullMethodName,
		adminv1.AdminService_ListRevisions_FullMethodName,
		adminv1.AdminService_GetRevision_FullMethodName,
		adminv1.AdminService_DiffRevisions_FullMethodName,
		adminv1.StatusService_GetStatus_FullMethodName,
		adminv1.StatusService_ListUpstreams_FullMethodName,
		adminv1.StatusService_ListCertificates_FullMethodName,
		adminv1.StatusService_WatchEvents_FullMethodName,
		adminv1.DiagnosticsService_ProbeUpstream_FullMethodName,
		adminv1.DiagnosticsService_ExplainRoute_FullMethodName,
		grpc_health_v1.Health_Check_FullMethodName,
		grpc_health_v1.Health_List_FullMethodName,
		grpc_health_v1.Health_Watch_FullMethodName,
		reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName,
		reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName:
		return read
	}
	return denied
}
