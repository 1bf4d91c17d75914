// Package adminv1 is the generated Go form of the admin API: the messages of the
// resources, and clients and servers for its three services.
//
// AdminService changes the configuration, StatusService watches the gateway, and
// DiagnosticsService answers why a handshake fails or where a request would go.
// Dial the unix socket or the TCP address of the admin service with grpc-go, and
// pass the connection to NewAdminServiceClient. docs/automation.md has a complete
// program; docs/reference/api.md describes every message and field.
//
// The .proto files beside this file are the source. `make generate` writes the
// rest of the package.
package adminv1
