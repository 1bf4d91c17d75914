package certs_test

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/tickets"
)

// resumes makes two connections with one client, the first to one Server and the second to
// another, and reports whether the second resumed the session of the first.
func resumes(t *testing.T, first, second *certs.Server, version uint16) bool {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", ClientSessionCache: tls.NewLRUClientSessionCache(1), MaxVersion: version}
	resumed := false
	for _, s := range []*certs.Server{first, second} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			raw, err := ln.Accept()
			if err == nil {
				conn := s.Conn(raw)
				_, err = conn.Write([]byte("x"))
				conn.Close()
			}
			done <- err
		}()
		conn, err := tls.Dial("tcp", ln.Addr().String(), config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(conn); err != nil {
			t.Error(err)
		}
		resumed = conn.ConnectionState().DidResume
		conn.Close()
		ln.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return resumed
}

func TestTicketKeysArePassedOnToTheSameIdentityOnly(t *testing.T) {
	ca := certstest.NewCA(t)
	cert, other := certstest.Certificate(t, ca.Server(t, "a.example")), certstest.Certificate(t, ca.Server(t, "a.example"))
	server := func(o certs.ServerOptions) *certs.Server {
		s, err := certs.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	now := time.Now()
	options := certs.ServerOptions{Owner: "web", Certificates: []*certs.Certificate{cert}, Time: func() time.Time { return now }}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		old := server(options)
		if !resumes(t, old, old, version) {
			t.Fatal("a server does not resume its own sessions")
		}
		keys := certs.TicketKeys{}
		keys.Add(old)
		text, err := keys.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			change func(*certs.ServerOptions)
			want   bool
		}{
			"the same":                   {func(*certs.ServerOptions) {}, true},
			"no keys":                    {func(o *certs.ServerOptions) { o.Inherited = nil }, false},
			"another owner":              {func(o *certs.ServerOptions) { o.Owner = "other" }, false},
			"another certificate":        {func(o *certs.ServerOptions) { o.Certificates = []*certs.Certificate{other} }, false},
			"another protocol":           {func(o *certs.ServerOptions) { o.NextProtos = []string{"h2"} }, false},
			"rejects unknown names":      {func(o *certs.ServerOptions) { o.RejectUnknownSNI = true }, false},
			"after a day":                {func(o *certs.ServerOptions) { o.Time = func() time.Time { return now.Add(25 * time.Hour) } }, true},
			"when the keys have expired": {func(o *certs.ServerOptions) { o.Time = func() time.Time { return now.Add(8 * 24 * time.Hour) } }, false},
		} {
			o := options
			if o.Inherited, err = certs.ParseTicketKeys(text); err != nil {
				t.Fatal(err)
			}
			c.change(&o)
			if got := resumes(t, old, server(o), version); got != c.want {
				t.Errorf("%s, %s: resumed is %t", tls.VersionName(version), name, got)
			}
		}
	}
}

// Two gateways share the secrets of tickets, and have policies of their own.
func TestServersWithSharedSecretsResumeTheSamePolicyOnly(t *testing.T) {
	ca := certstest.NewCA(t)
	cert, other := certstest.Certificate(t, ca.Server(t, "a.example")), certstest.Certificate(t, ca.Server(t, "a.example"))
	now := time.Now()
	list := tickets.List(nil).Rotated(now)
	share := func(l tickets.List) *tickets.Shared {
		s := new(tickets.Shared)
		s.Set(l)
		return s
	}
	next := list.Rotated(now.Add(24 * time.Hour))
	options := certs.ServerOptions{Owner: "web", Certificates: []*certs.Certificate{cert}, Time: func() time.Time { return now }}
	server := func(l tickets.List, change func(*certs.ServerOptions)) *certs.Server {
		o := options
		o.TicketSecrets = share(l)
		change(&o)
		s, err := certs.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	same := func(*certs.ServerOptions) {}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, c := range map[string]struct {
			list   tickets.List
			change func(*certs.ServerOptions)
			want   bool
		}{
			"the same":              {list, same, true},
			"without secrets":       {nil, same, false},
			"other secrets":         {tickets.List(nil).Rotated(now), same, false},
			"after a rotation":      {next, same, true},
			"the secret dropped":    {next[:1], same, false},
			"without an owner":      {list, func(o *certs.ServerOptions) { o.Owner = "" }, false},
			"another owner":         {list, func(o *certs.ServerOptions) { o.Owner = "other" }, false},
			"another certificate":   {list, func(o *certs.ServerOptions) { o.Certificates = []*certs.Certificate{other} }, false},
			"another protocol":      {list, func(o *certs.ServerOptions) { o.NextProtos = []string{"h2"} }, false},
			"another version":       {list, func(o *certs.ServerOptions) { o.MinVersion = tls.VersionTLS11 }, false},
			"rejects unknown names": {list, func(o *certs.ServerOptions) { o.RejectUnknownSNI = true }, false},
			"clients authenticate": {list, func(o *certs.ServerOptions) {
				o.ClientAuth, o.ClientTrust = certs.ClientAuthOptional, []*certs.TrustBundle{ca.Trust(t)}
			}, false},
		} {
			if got := resumes(t, server(list, same), server(c.list, c.change), version); got != c.want {
				t.Errorf("%s, %s: resumed is %t", tls.VersionName(version), name, got)
			}
		}
		// A policy that is replaced and comes back has its old keys again: docs/adr/0022.
		a := server(list, same)
		back := server(list, func(o *certs.ServerOptions) {
			o.NextProtos = []string{"h2"}
			b, err := certs.NewServer(*o)
			if err != nil {
				t.Fatal(err)
			}
			o.NextProtos, o.Replaces = nil, b
		})
		if !resumes(t, a, back, version) {
			t.Errorf("%s: the policy does not resume its own tickets after it came back", tls.VersionName(version))
		}
	}
}
