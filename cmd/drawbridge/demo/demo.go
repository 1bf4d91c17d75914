// Package demo has the command `drawbridge demo`. It runs a CA, three upstream
// servers and a gateway in one process.
package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/configfile"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/gateway"
)

// New returns the command.
func New(env *command.Env) *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a complete bridge on this machine with one command",
		Long: `Demo makes a CA, starts three upstream servers that demand a client certificate
(two HTTPS servers in one group, one TLS echo server), and runs a gateway that
lets plaintext HTTP and TCP clients reach them. It sends a first request through
each listener, shows the responses, and prints commands to try.

Everything listens on the loopback interface only. Ctrl-C stops it and removes
its files.`,
		Example: "  drawbridge demo\n  drawbridge demo --once",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), env, once)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "show the first responses and exit")
	return cmd
}

// demoTimeout bounds each of the demo's own requests, which take milliseconds.
const demoTimeout = 10 * time.Second

func run(ctx context.Context, env *command.Env, once bool) (err error) {
	dir, err := os.MkdirTemp("", "drawbridge-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	ca, err := issueDemo(filepath.Join(dir, "pki"))
	if err != nil {
		return err
	}
	ups, err := startDemoUpstreams(ca)
	if err != nil {
		return err
	}
	defer ups.stop()
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: env.Err})
	gw, err := gateway.Open(ctx, gateway.Options{
		DataDir:      filepath.Join(dir, "data"),
		AdminSocket:  filepath.Join(dir, "admin.sock"),
		FileRoots:    []string{dir},
		DrainTimeout: 2 * time.Second,
		Version:      env.Version,
		Logger:       log,
	})
	if err != nil {
		return err
	}
	files, err := configureDemo(ctx, gw, dir, ups, log)
	if err != nil {
		return errors.Join(err, gw.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- gw.Run(ctx) }()

	err = showDemo(ctx, env, gw, dir, files, ups, once)
	if ctx.Err() != nil {
		err = nil // an interrupt is not a failure
	} else if err == nil && !once {
		select {
		case <-ctx.Done():
			fmt.Fprintln(env.Out, "\nStopping.")
		case err = <-ended:
			ended <- nil
		}
	}
	cancel()
	return errors.Join(err, <-ended)
}

// configureDemo writes the demo's files to dir and applies them to gw.
func configureDemo(ctx context.Context, gw *gateway.Gateway, dir string, ups *demoUpstreams, log hclog.Logger) (*demoFiles, error) {
	web, echo := loopbackAddress("8080"), loopbackAddress("7000")
	for {
		files, err := writeDemoFiles(dir, ups, web, echo)
		if err != nil {
			return nil, err
		}
		m, err := manifest.Load(nil, files.config)
		if err != nil {
			return nil, err
		}
		err = configfile.Apply(ctx, gw, m, "demo", log)
		if err != nil && exit.AsError(err).Code == exit.Conflict && web+echo != anyPort+anyPort {
			web, echo = anyPort, anyPort // another process took a port
			continue
		}
		return files, err
	}
}

func showDemo(ctx context.Context, env *command.Env, gw *gateway.Gateway, dir string, files *demoFiles, ups *demoUpstreams, once bool) error {
	web, echo := boundAddress(gw, "web"), boundAddress(gw, "echo")
	bold := env.Paint(env.Out).Strong
	fmt.Fprintf(env.Out, `%s: a CA, three upstream servers that demand a client certificate, and a gateway.

  plaintext               gateway           TLS, with the gateway's client certificate
  %-23s listener web  ->  web-1 %s, web-2 %s
  %-23s listener echo ->  echo  %s

`, bold("Drawbridge demo"), "http://"+web, ups.web1.address, ups.web2.address, echo, ups.echo.address)

	for range 2 {
		answer, err := fetch(ctx, "http://"+web+"/")
		if err != nil {
			return fmt.Errorf("the first request through listener web: %w", err)
		}
		fmt.Fprintf(env.Out, "%s\n%s", bold("$ curl http://"+web+"/"), answer)
	}
	answer, err := echoed(ctx, echo, "hello\n")
	if err != nil {
		return fmt.Errorf("the first connection through listener echo: %w", err)
	}
	host, port, _ := net.SplitHostPort(echo)
	nc := "echo hello | nc -N " + host + " " + port
	fmt.Fprintf(env.Out, "%s\n%s", bold("$ "+nc), answer)
	if once {
		return nil
	}

	socket := filepath.Join(dir, "admin.sock")
	fmt.Fprintf(env.Out, "\n%s\n", bold("Try it from another terminal:"))
	for _, step := range []struct{ description, commands string }{
		{"the same requests", "curl http://" + web + "/\n" + nc},
		{"see the configuration and its status", "export DRAWBRIDGE_ADMIN=unix:" + socket + "\n" +
			env.Program + " get all\n" + env.Program + " status"},
		{"see the upstreams' certificates and the negotiated TLS", env.Program + " probe web\n" + env.Program + " status --certificates"},
		{"add a route while traffic flows", env.Program + " apply -f " + files.route + "\ncurl http://" + web + "/hello"},
		{"rotate the client certificate: the upstreams see a new serial", env.Program + " apply -f " + files.rotate + "\ncurl http://" + web + "/"},
		{"the same over plain gRPC", "grpcurl -plaintext unix://" + socket + " list drawbridge.admin.v1.AdminService\n" +
			"grpcurl -plaintext -d @ unix://" + socket + " drawbridge.admin.v1.AdminService/PutRoute < " + files.routeJSON + "\n" +
			"grpcurl -plaintext -d @ unix://" + socket + " drawbridge.admin.v1.AdminService/PutCertificate < " + files.rotateJSON},
	} {
		fmt.Fprintf(env.Out, "\n  # %s\n  %s\n", step.description, strings.ReplaceAll(step.commands, "\n", "\n  "))
	}
	fmt.Fprintf(env.Out, "\nCtrl-C stops everything and removes %s.\n", dir)
	return nil
}

// boundAddress returns the address that a listener is bound to.
func boundAddress(gw *gateway.Gateway, listener string) string {
	for _, l := range gw.Status().GetListeners() {
		if l.GetName() == listener {
			return l.GetBoundAddress()
		}
	}
	return ""
}

func fetch(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(body)))
	}
	return string(body), err
}

// echoed sends a line, ends its side of the stream like `nc -N`, and returns
// the whole answer.
func echoed(ctx context.Context, address, line string) (string, error) {
	conn, err := (&net.Dialer{Timeout: demoTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(demoTimeout))
	if _, err := io.WriteString(conn, line); err != nil {
		return "", err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(bufio.NewReader(conn), 4096))
	if err == nil && !strings.HasSuffix(string(answer), line) {
		err = fmt.Errorf("%q came back for %q", answer, line)
	}
	return string(answer), err
}
