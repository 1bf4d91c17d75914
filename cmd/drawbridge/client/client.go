// Package client connects commands to a running gateway.
//
// A command adds the connection's flags with Flags, and dials when it runs. A Client
// calls the API's services, and reads all pages of a list.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// maxAnswer bounds a response. It is far above the gateway's own limit.
const maxAnswer = 256 << 20

// A Connector holds the flags for the connection to the gateway.
type Connector struct {
	env           *command.Env
	admin         string
	ca, cert, key string
	serverName    string
}

// Flags adds the flags for the connection to a gateway.
func Flags(e *command.Env, flags *pflag.FlagSet) *Connector {
	o := &Connector{env: e}
	socket := ""
	if dir := e.DefaultDataDir(); dir != "" {
		socket = "unix:" + filepath.Join(dir, "admin.sock")
	}
	flags.StringVar(&o.admin, "admin", socket, "address of the gateway's admin service: unix:`PATH` or HOST:PORT")
	flags.StringVar(&o.ca, "admin-tls-ca", "", "PEM `file` of the CA that the gateway's certificate must chain to (HOST:PORT only; default: the system's CAs)")
	flags.StringVar(&o.cert, "admin-tls-cert", "", "PEM `file` of the client certificate to present (HOST:PORT only)")
	flags.StringVar(&o.key, "admin-tls-key", "", "PEM `file` of its private key")
	flags.StringVar(&o.serverName, "admin-tls-server-name", "", "`name` that the gateway's certificate must have (default: HOST)")
	return o
}

// A Client is a connection to a gateway. The caller of Dial
// closes it.
type Client struct {
	adminv1.AdminServiceClient
	Status      adminv1.StatusServiceClient
	Diagnostics adminv1.DiagnosticsServiceClient
	Fleet       adminv1.FleetServiceClient
	conn        *grpc.ClientConn
	target      string
	// anonymous means over TCP without a client certificate.
	anonymous bool
	// dialError is the last error of a TCP or unix connection. It is a
	// pointer to an error because errors have different types.
	dialError atomic.Pointer[error]
}

// Close closes the connection. Calls in progress fail.
func (cl *Client) Close() error { return cl.conn.Close() }

// Dial checks the flags and prepares a connection. The first call establishes it.
func (o *Connector) Dial() (*Client, error) {
	network, address, creds := "unix", "", insecure.NewCredentials()
	authority := "localhost"
	if path, ok := strings.CutPrefix(o.admin, "unix:"); ok {
		address = strings.TrimPrefix(path, "//")
		if address == "" {
			return nil, exit.UsageError("--admin: unix: needs a path")
		}
		if o.ca+o.cert+o.key+o.serverName != "" {
			return nil, exit.UsageError("--admin-tls-… require --admin HOST:PORT, but --admin is " + o.admin)
		}
	} else {
		host, _, err := net.SplitHostPort(o.admin)
		if err != nil {
			return nil, exit.UsageError(fmt.Sprintf("--admin %q: must be unix:PATH or HOST:PORT", o.admin))
		}
		config, err := o.tlsConfig(host)
		if err != nil {
			return nil, err
		}
		network, address, creds, authority = "tcp", o.admin, credentials.NewTLS(config), config.ServerName
	}

	cl := &Client{target: o.admin, anonymous: network == "tcp" && o.cert == ""}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds),
		grpc.WithAuthority(authority),
		grpc.WithUserAgent("drawbridge/"+o.env.Version),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		// With keepalive, watch detects a gateway that has disappeared.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				cl.dialError.Store(&err)
			}
			return conn, err
		}))
	if err != nil {
		return nil, err
	}
	cl.conn = conn
	cl.AdminServiceClient = adminv1.NewAdminServiceClient(conn)
	cl.Status = adminv1.NewStatusServiceClient(conn)
	cl.Diagnostics = adminv1.NewDiagnosticsServiceClient(conn)
	cl.Fleet = adminv1.NewFleetServiceClient(conn)
	return cl, nil
}

func (o *Connector) tlsConfig(host string) (*tls.Config, error) {
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if o.serverName != "" {
		config.ServerName = o.serverName
	}
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, fmt.Errorf("--admin-tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--admin-tls-ca: %s holds no certificate in PEM", o.ca)
		}
	}
	if (o.cert == "") != (o.key == "") {
		return nil, exit.UsageError("--admin-tls-cert and --admin-tls-key must be set together")
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, fmt.Errorf("--admin-tls-cert, --admin-tls-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Failure explains the error of a call. It returns nil for nil. name may be
// nil.
func (cl *Client) Failure(err error, name exit.FieldNamer) error {
	st, ok := status.FromError(err)
	if !ok || st.Code() != codes.Unavailable {
		return exit.RPCError(err, name)
	}
	f := &exit.Error{Code: exit.Unavailable}
	if dialed := cl.dialError.Load(); dialed != nil {
		cause := errors.Unwrap(*dialed) // without "dial unix /path:"
		if cause == nil {
			cause = *dialed
		}
		f.Summary = fmt.Sprintf("cannot reach the gateway at %s: %v", cl.target, cause)
		switch {
		case errors.Is(*dialed, fs.ErrPermission):
			f.Code = exit.Denied
		case errors.Is(*dialed, fs.ErrNotExist), errors.Is(*dialed, syscall.ECONNREFUSED):
			f.Summary += "\nIs `drawbridge serve` running there? Set its address with --admin or DRAWBRIDGE_ADMIN."
		}
		return f
	}
	if len(st.Details()) > 0 {
		return exit.RPCError(err, name) // the error is from the gateway
	}
	// The connection was established and then lost. A TLS 1.3 server rejects a client's
	// certificate after the handshake, with an alert. At best err contains the alert's
	// text, and after a broken pipe the alert is lost. But a gateway requires a
	// certificate over TCP, so an anonymous client was certainly rejected.
	f.Summary = fmt.Sprintf("no connection to the gateway at %s: %s", cl.target, terminal.Printable(st.Message()))
	rejectedByClient := strings.Contains(st.Message(), "authentication handshake failed")
	if strings.Contains(st.Message(), "remote error: tls:") || cl.anonymous && !rejectedByClient {
		f.Code = exit.Denied
		f.Summary += "\nIt accepts only clients whose certificate (--admin-tls-cert, --admin-tls-key) it trusts."
	}
	return f
}
