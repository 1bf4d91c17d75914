// A TLS 1.2 server may request renegotiation after a request, for example IIS to
// get a client certificate. This failure has its own reason. With
// tls.renegotiation ONCE the request succeeds over HTTP/1.1; over TCP the
// connection ends with the reason.

package e2e

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// startRenegotiating runs openssl s_server, which requests renegotiation with a
// client certificate after each request, and answers then. It returns the
// address.
func startRenegotiating(t *testing.T, a *authority) string {
	t.Helper()
	openssl := need(t, "openssl")
	dir := t.TempDir()
	for name, data := range nginxFiles(a.ca, a.server) {
		writeFile(t, filepath.Join(dir, name), data)
	}
	cmd := exec.Command(openssl, "s_server", "-accept", "127.0.0.1:0", "-tls1_2", "-msg", "-verify_return_error",
		"-cert", filepath.Join(dir, "server.pem"), "-key", filepath.Join(dir, "server.key"), "-CAfile", filepath.Join(dir, "ca.pem"))
	dieWithParent(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		drive(bufio.NewScanner(stdout), stdin, address)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		cmd.Wait()
	})
	got, ok := <-address
	if !ok {
		t.Fatal("openssl s_server did not start")
	}
	return got
}

// drive reads the output of s_server, which prints each message (-msg) and each
// line from the client.
func drive(lines *bufio.Scanner, stdin io.Writer, address chan<- string) {
	defer close(address)
	asked := false // the request has arrived, and renegotiation was requested
	for lines.Scan() {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "ACCEPT "); ok {
			select {
			case address <- rest:
			default:
			}
		}
		switch {
		case strings.Contains(line, "CONNECTION CLOSED"), strings.HasPrefix(line, "ERROR"):
			asked = false
		case strings.Contains(line, " /secure"):
			asked = true
			io.WriteString(stdin, "R\n") // renegotiate, with a client certificate
		case asked && strings.Contains(line, ">>>") && strings.Contains(line, "Finished"):
			asked = false
			io.WriteString(stdin, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\nreached")
		}
	}
}

func TestRenegotiation(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	address := startRenegotiating(t, a)
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client))
	once := a.settings()
	once.Renegotiation = adminv1.Renegotiation_RENEGOTIATION_ONCE
	none := a.settings()
	none.Renegotiation, none.Certificate = adminv1.Renegotiation_RENEGOTIATION_ONCE, ""
	for name, settings := range map[string]*adminv1.UpstreamTls{"never": a.settings(), "once": once, "none": none} {
		u := upstream(name, settings, address)
		u.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_1_1}
		g.apply(u, listener(name, protocolHTTP, name))
	}
	g.apply(upstream("stream", once, address), listener("stream", protocolTCP, "stream"))

	probe := func(name string, reason adminv1.Reason, status int32, facts ...string) *adminv1.ProbeResult {
		t.Helper()
		answer, err := g.diagnostics.ProbeUpstream(longContext(t), &adminv1.ProbeUpstreamRequest{
			Target: &adminv1.ProbeUpstreamRequest_Name{Name: name}, Request: "GET /secure"})
		if err != nil {
			t.Fatal(err)
		}
		r := answer.GetResults()[0]
		if r.GetReason() != reason || r.GetResponseStatus() != status {
			t.Errorf("%s: %v, status %d: %s", name, r.GetReason(), r.GetResponseStatus(), r.GetExplanation())
		}
		for _, f := range facts {
			if !strings.Contains(r.GetExplanation(), f) {
				t.Errorf("%s: the explanation does not name %q: %s", name, f, r.GetExplanation())
			}
		}
		return r
	}
	expectProbe(t, g, "never", adminv1.Reason_REASON_UNSPECIFIED, nil, nil) // without a request the server does not renegotiate
	r := probe("never", adminv1.Reason_REASON_RENEGOTIATION_REQUESTED, 0, "after the request GET /secure it requested TLS renegotiation")
	if s := r.GetSuggestion(); s.GetField() != "tls.renegotiation" || s.GetValue() != "RENEGOTIATION_ONCE" {
		t.Errorf("suggestion %v", s)
	}
	probe("once", adminv1.Reason_REASON_UNSPECIFIED, 200, "requested TLS renegotiation, and the second handshake succeeded", "200 (OK)")
	probe("none", adminv1.Reason_REASON_UNSPECIFIED, 200, "requested TLS renegotiation") // the server requests a certificate but does not require it

	for name, want := range map[string]struct {
		code   int
		reason adminv1.Reason
	}{
		"never": {502, adminv1.Reason_REASON_RENEGOTIATION_REQUESTED},
		"once":  {200, 0},
		"none":  {200, 0},
	} {
		code, body := get(t, "http://"+g.address(name)+"/secure")
		if code != want.code || want.code == 200 && body != "reached" {
			t.Errorf("%s: %d %q", name, code, body)
		}
		if want.reason != 0 {
			expectReason(t, g, name, want.reason)
		}
	}
	conn, err := net.DialTimeout("tcp", g.address("stream"), testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	if _, err := io.WriteString(conn, "GET /secure HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); len(answer) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("TCP: %q, %v", answer, err)
	}
	eventually(t, "the log names the reason of the TCP connection", func() bool {
		for line := range strings.Lines(g.out.String()) {
			if strings.Contains(line, `"listener":"stream"`) && strings.Contains(line, "RENEGOTIATION_REQUESTED") {
				return true
			}
		}
		return false
	})
}
