package main

import (
	"crypto/tls"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func refuse(code codes.Code, msg string, details ...protoadapt.MessageV1) error {
	st, err := status.New(code, msg).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func TestStatusCodesBecomeExitCodes(t *testing.T) {
	for code, want := range map[codes.Code]int{
		codes.InvalidArgument: exit.Invalid, codes.NotFound: exit.NotFound, codes.Aborted: exit.Conflict,
		codes.FailedPrecondition: exit.Conflict, codes.Unavailable: exit.Unavailable,
		codes.PermissionDenied: exit.Denied, codes.Unauthenticated: exit.Denied,
		codes.Internal: exit.Failure, codes.ResourceExhausted: exit.Failure,
	} {
		sh := serveFake(t, fakeAdmin{get: func(*adminv1.GetListenerRequest) (*adminv1.Listener, error) {
			return nil, refuse(code, "because\nof this", &errdetails.ErrorInfo{Domain: "drawbridge"})
		}})
		sh.run(t.Context(), "get", "listener", "web").want(t, want, "Error: because of this\n")
	}
}

func TestFaultsOfAnApplyNameTheFile(t *testing.T) {
	file := writeFile(t, t.TempDir(), "web.yaml", "kind: Upstream\nname: up\nendpoints:\n- address: a:1\n- address: b\n---\nkind: Listener\nname: web\n")
	var answer error
	sh := serveFake(t, fakeAdmin{apply: func(*adminv1.ApplyRequest) (*adminv1.ApplyResponse, error) { return nil, answer }})

	answer = refuse(codes.InvalidArgument, "3 faults", &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "resources[0].upstream.endpoints[1].address", Description: "must be host:port"},
		{Field: "resources[1].listener.protocol", Description: "must be given"},
		{Description: "and 1 more"},
	}}, &errdetails.ErrorInfo{Domain: "drawbridge", Metadata: map[string]string{"faults": "3"}})
	r := sh.run(t.Context(), "apply", "-f", file)
	if want := file + ":5: document 1 (Upstream up): endpoints[1].address: must be host:port\n" +
		file + ":7: document 2 (Listener web): protocol: must be given\nand 1 more\nError: 3 faults; nothing was changed\n"; r.code != exit.Invalid || r.err != want {
		t.Errorf("got %d\n%s\nwant\n%s", r.code, r.err, want)
	}

	answer = refuse(codes.FailedPrecondition, "in use", &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
		{Subject: "resources[1].listener.address", Description: "is in use"}}})
	sh.run(t.Context(), "apply", "-f", file).want(t, exit.Conflict, "Error: "+file+":7: document 2 (Listener web): address: is in use\n")

	answer = refuse(codes.NotFound, "x", &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "deletes[1]", Description: "route b does not exist"}}})
	sh.run(t.Context(), "delete", "routes", "a", "b").want(t, exit.NotFound, "Error: route b does not exist\n")
}

func TestUnreachableGatewayIsReported(t *testing.T) {
	sh := shell{}
	sh.run(t.Context(), "status", "--admin", "unix:"+filepath.Join(t.TempDir(), "none.sock")).
		want(t, exit.Unavailable, "cannot reach the gateway at unix:", "no such file or directory", "Is `drawbridge serve` running there?")

	sh.run(t.Context(), "watch", "--admin", sockettest.Free(t)).want(t, exit.Unavailable, "connection refused")
}

func TestConnectionFlagsAreChecked(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--admin", "localhost"}, exit.Usage, `--admin "localhost": must be unix:PATH or HOST:PORT`},
		{[]string{"--admin", "unix:"}, exit.Usage, "needs a path"},
		{[]string{"--admin", "unix:/x", "--admin-tls-ca", "ca.pem"}, exit.Usage, "require --admin HOST:PORT"},
		{[]string{"--admin", "h:1", "--admin-tls-cert", "c.pem"}, exit.Usage, "must be set together"},
		{[]string{"--admin", "h:1", "--admin-tls-ca", filepath.Join(dir, "none")}, exit.Failure, "--admin-tls-ca: open"},
		{[]string{"--admin", "h:1", "--admin-tls-ca", writeFile(t, dir, "empty", "")}, exit.Failure, "holds no certificate"},
		{[]string{"--admin", "h:1", "--admin-tls-cert", dir, "--admin-tls-key", dir}, exit.Failure, "--admin-tls-cert, --admin-tls-key: read"},
	} {
		shell{}.run(t.Context(), append([]string{"status"}, tt.args...)...).want(t, tt.code, tt.want)
	}
}

func TestAdminOverMutualTLS(t *testing.T) {
	ca := certstest.NewCA(t)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, fakeAdmin{get: func(*adminv1.GetListenerRequest) (*adminv1.Listener, error) {
		return nil, status.Error(codes.NotFound, "no such listener")
	}}, lis, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "gateway.test"))},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	})))
	dir := t.TempDir()
	client := ca.Client(t, "operator")
	args := []string{"get", "listener", "web", "--admin", lis.Addr().String(), "--admin-tls-ca", writeFile(t, dir, "ca.pem", string(ca.TrustPEM()))}
	named := append(args, "--admin-tls-server-name", "gateway.test")
	full := append(named, "--admin-tls-cert", writeFile(t, dir, "c.pem", string(client.ChainPEM)), "--admin-tls-key", writeFile(t, dir, "k.pem", string(client.KeyPEM)))

	shell{}.run(t.Context(), full...).want(t, exit.NotFound, "no such listener")
	shell{}.run(t.Context(), named...).want(t, exit.Denied, "It accepts only clients whose certificate")
	r := shell{}.run(t.Context(), args...)
	r.want(t, exit.Unavailable, "cannot validate certificate for 127.0.0.1")
	if strings.Contains(r.err, "PRIVATE KEY") {
		t.Error("a key was shown")
	}
}
