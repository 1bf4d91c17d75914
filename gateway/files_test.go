package gateway

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// greeter starts a TLS server that requires client certificates. It sends the
// common name in the client's certificate, and then echoes.
func greeter(t *testing.T, ca *certstest.CA) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.example"))}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(c net.Conn) {
		s := c.(*tls.Conn)
		if s.Handshake() != nil {
			return
		}
		fmt.Fprintln(s, s.ConnectionState().PeerCertificates[0].Subject.CommonName)
		io.Copy(s, s)
		s.CloseWrite()
	})
	return l.Addr().String()
}

// identity returns the name in the client certificate that the gateway uses for
// a new connection through the listener.
func (g *testGateway) identity(listener string) string {
	g.t.Helper()
	c := dial(g.t, g.address(listener))
	defer c.Close()
	name, err := c.r.ReadString('\n')
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.TrimSpace(name)
}

// fromFiles returns the resources of a bridge to endpoint. Its client
// certificate comes from a pair of files.
func fromFiles(t *testing.T, ca *certstest.CA, endpoint, chain, key string) []store.Resource {
	t.Helper()
	rs := bridgeTo(t, ca, endpoint)
	rs[1] = &adminv1.Certificate{Name: "client", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: chain, PrivateKeyPath: key}}}
	return append(rs, tcpListener("l", "127.0.0.1:0"))
}

// writeFile overwrites a file in place, like `cp`.
func writeFile(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// replaceFile replaces a file atomically, by a rename.
func replaceFile(t *testing.T, path string, content []byte) {
	t.Helper()
	writeFile(t, path+".new", content)
	rename(t, path+".new", path)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// A fileEvents holds a gateway's events about files.
type fileEvents struct {
	t    *testing.T
	from <-chan *adminv1.Event
}

func (g *testGateway) fileEvents() *fileEvents {
	events, stop := g.WatchEvents()
	g.t.Cleanup(stop)
	return &fileEvents{g.t, events}
}

// next returns the next event about files.
func (e *fileEvents) next() *adminv1.Event {
	e.t.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case got, ok := <-e.from:
			if !ok {
				e.t.Fatal("the events ended")
			}
			if got.GetType() == adminv1.EventType_EVENT_TYPE_FILE_LOADED || got.GetType() == adminv1.EventType_EVENT_TYPE_FILE_REFUSED {
				return got
			}
		case <-timeout:
			e.t.Fatal("no event about a file came")
		}
	}
}

// loaded waits until the files of a resource are loaded.
func (e *fileEvents) loaded(name string) *adminv1.Event {
	e.t.Helper()
	for {
		got := e.next()
		if got.GetType() == adminv1.EventType_EVENT_TYPE_FILE_LOADED && got.GetName() == name {
			return got
		}
	}
}

func TestNextHandshakeUsesRotatedFiles(t *testing.T) {
	ca, dir := certstest.NewCA(t), t.TempDir()
	one := ca.Client(t, "one")
	chain, key := writeFile(t, filepath.Join(dir, "tls.crt"), one.ChainPEM), writeFile(t, filepath.Join(dir, "tls.key"), one.KeyPEM)
	g := start(t, "")
	g.put(fromFiles(t, ca, greeter(t, ca), chain, key)...)
	events := g.fileEvents()
	_, updates, stop := g.Watch()
	defer stop()
	var streams []*stream
	for range 10 {
		s := dial(t, g.address("l"))
		if name, _ := s.r.ReadString('\n'); name != "one\n" {
			t.Fatalf("the client is %q", name)
		}
		streams = append(streams, s)
	}

	for i := range 3 {
		name := fmt.Sprintf("rotated-%d", i)
		next := ca.Client(t, name)
		replaceFile(t, chain, next.ChainPEM)
		replaceFile(t, key, next.KeyPEM)
		e := events.loaded("client")
		if got := g.identity("l"); got != name {
			t.Errorf("the next connection is made as %q, not %q", got, name)
		}
		if u := <-updates; u.Revision != e.GetRevision() || !strings.HasPrefix(u.Comment, "file changed: "+chain+", "+key) || len(u.Changes) != 1 {
			t.Errorf("%+v; event %v", u, e)
		}
		for _, s := range streams {
			s.echo(t, "still there")
		}
	}
}

func TestFilesAreReloadedAfterEveryKindOfReplacement(t *testing.T) {
	ca := certstest.NewCA(t)
	upstream := greeter(t, ca)
	// A layout is a place for the pair of files, and a way to replace it by
	// another pair.
	for _, layout := range []struct {
		name  string
		paths func(dir string) (chain, key string)
		put   func(t *testing.T, dir string, n int, i *pki.Issued)
	}{
		{"overwritten", flat, func(t *testing.T, dir string, _ int, i *pki.Issued) {
			chain, key := flat(dir)
			writeFile(t, chain, i.ChainPEM)
			writeFile(t, key, i.KeyPEM)
		}},
		{"the key is replaced first", flat, func(t *testing.T, dir string, _ int, i *pki.Issued) {
			chain, key := flat(dir)
			writeFile(t, key, i.KeyPEM)
			writeFile(t, chain, i.ChainPEM)
		}},
		{"an editor that keeps the old file", flat, func(t *testing.T, dir string, n int, i *pki.Issued) {
			for path, content := range pair(dir, i) {
				if n > 0 {
					rename(t, path, path+"~")
				}
				writeFile(t, path, content)
			}
		}},
		{"removed and created again", flat, func(t *testing.T, dir string, _ int, i *pki.Issued) {
			for path, content := range pair(dir, i) {
				os.Remove(path)
				writeFile(t, path, content)
			}
		}},
		{"a Kubernetes volume", flat, func(t *testing.T, dir string, n int, i *pki.Issued) {
			version := fmt.Sprintf("..2026_%d", n)
			if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
				t.Fatal(err)
			}
			for path, content := range pair(filepath.Join(dir, version), i) {
				writeFile(t, path, content)
				if n == 0 {
					symlink(t, filepath.Join("..data", filepath.Base(path)), filepath.Join(dir, filepath.Base(path)))
				}
			}
			symlink(t, version, filepath.Join(dir, "..data_tmp"))
			rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
			if n > 0 {
				os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..2026_%d", n-1)))
			}
		}},
		{"symlinks to an archive, as certbot makes them", flat, func(t *testing.T, dir string, n int, i *pki.Issued) {
			archive := filepath.Join(dir, "archive")
			os.Mkdir(archive, 0o700)
			for path, content := range pair(dir, i) {
				target := filepath.Join(archive, fmt.Sprint(n, filepath.Base(path)))
				writeFile(t, target, content)
				os.Remove(path)
				symlink(t, target, path)
			}
		}},
		{"the whole directory", nested, func(t *testing.T, dir string, n int, i *pki.Issued) {
			next, live := filepath.Join(dir, "next"), filepath.Join(dir, "live")
			if err := os.Mkdir(next, 0o700); err != nil {
				t.Fatal(err)
			}
			for path, content := range pair(next, i) {
				writeFile(t, path, content)
			}
			if n > 0 {
				rename(t, live, filepath.Join(dir, fmt.Sprint("old", n)))
			}
			rename(t, next, live)
		}},
	} {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			chain, key := layout.paths(dir)
			layout.put(t, dir, 0, ca.Client(t, "v0"))
			g := start(t, "")
			g.put(fromFiles(t, ca, upstream, chain, key)...)
			events := g.fileEvents()
			for n := 1; n <= 2; n++ { // also a second time, because the file must still be watched
				name := fmt.Sprintf("v%d", n)
				layout.put(t, dir, n, ca.Client(t, name))
				events.loaded("client")
				if got := g.identity("l"); got != name {
					t.Errorf("after change %d the next connection is made as %q", n, got)
				}
			}
		})
	}
}

func flat(dir string) (chain, key string) {
	return filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
}

func nested(dir string) (chain, key string) { return flat(filepath.Join(dir, "live")) }

// pair returns the files of an issued certificate in dir.
func pair(dir string, i *pki.Issued) map[string][]byte {
	chain, key := flat(dir)
	return map[string][]byte{chain: i.ChainPEM, key: i.KeyPEM}
}

func TestInvalidFilesAreReportedOnceAndOldOnesStayLive(t *testing.T) {
	ca := certstest.NewCA(t)
	upstream := greeter(t, ca)
	other := ca.Client(t, "other")
	for what, tt := range map[string]struct {
		spoil func(t *testing.T, chain, key string)
		want  string // text in the event
	}{
		"half written": {func(t *testing.T, chain, _ string) {
			replaceFile(t, chain, other.ChainPEM[:len(other.ChainPEM)/2])
		}, "files.certificate_path: "},
		"empty":         {func(t *testing.T, chain, _ string) { replaceFile(t, chain, nil) }, "files.certificate_path: is empty"},
		"missing":       {func(t *testing.T, _, key string) { os.Remove(key) }, "no such file"},
		"mismatched":    {func(t *testing.T, chain, _ string) { replaceFile(t, chain, other.ChainPEM) }, "is not the key of the certificate"},
		"of wrong type": {func(t *testing.T, _, key string) { replaceFile(t, key, ca.TrustPEM()) }, "files.private_key_path: "},
		"huge": {func(t *testing.T, chain, _ string) {
			writeFile(t, chain+".new", nil)
			if err := os.Truncate(chain+".new", fileroot.MaxBytes+1); err != nil {
				t.Fatal(err)
			}
			rename(t, chain+".new", chain)
		}, "larger than"},
		"a FIFO": {func(t *testing.T, chain, _ string) {
			if err := syscall.Mkfifo(chain+".new", 0o600); err != nil {
				t.Fatal(err)
			}
			rename(t, chain+".new", chain)
		}, "not a regular file"},
		"a directory": {func(t *testing.T, chain, _ string) {
			os.Remove(chain)
			if err := os.Mkdir(chain, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		"a symlink to a file outside the roots": {func(t *testing.T, chain, _ string) {
			symlink(t, "/etc/hostname", chain+".new")
			rename(t, chain+".new", chain)
		}, "is not a file below the directories"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			chain, key := flat(dir)
			one := ca.Client(t, "one")
			for path, content := range pair(dir, one) {
				writeFile(t, path, content)
			}
			g := start(t, "")
			g.put(fromFiles(t, ca, upstream, chain, key)...)
			events := g.fileEvents()
			held := dial(t, g.address("l"))
			held.r.ReadString('\n')

			tt.spoil(t, chain, key)
			e := events.next()
			if what == "a directory" && strings.Contains(e.GetMessage(), "no such file") {
				e = events.next() // the gateway may look between the two steps
			}
			first := e.GetMessage()
			if e.GetType() != adminv1.EventType_EVENT_TYPE_FILE_REFUSED || e.GetKind() != adminv1.Kind_KIND_CERTIFICATE || e.GetName() != "client" || !strings.Contains(e.GetMessage(), tt.want) {
				t.Errorf("%v", e)
			}
			if strings.Contains(e.GetMessage()+g.log.String(), "PRIVATE KEY---") {
				t.Error("an event reveals a key")
			}
			if got := g.identity("l"); got != "one" || g.State().Revision() != 1 {
				t.Errorf("the next connection is made as %q at revision %d", got, g.State().Revision())
			}
			// Another check of unchanged files sends no event.
			now := time.Now()
			if err := os.Chtimes(dir, now, now); err != nil {
				t.Fatal(err)
			}
			replaceFile(t, filepath.Join(dir, "bystander"), []byte("x"))

			os.RemoveAll(chain)
			two := ca.Client(t, "two")
			writeFile(t, chain+".new", two.ChainPEM)
			replaceFile(t, key, two.KeyPEM)
			rename(t, chain+".new", chain)
			for e := events.next(); e.GetType() != adminv1.EventType_EVENT_TYPE_FILE_LOADED; e = events.next() {
				if e.GetMessage() == first {
					t.Errorf("reported twice: %v", e)
				}
			}
			if got := g.identity("l"); got != "two" {
				t.Errorf("the next connection is made as %q", got)
			}
			held.echo(t, "still there")
		})
	}
}

func TestARepeatedFaultIsReportedOnce(t *testing.T) {
	ca, dir := certstest.NewCA(t), t.TempDir()
	chain, key := flat(dir)
	for path, content := range pair(dir, ca.Client(t, "one")) {
		writeFile(t, path, content)
	}
	g := start(t, "")
	g.put(fromFiles(t, ca, greeter(t, ca), chain, key)...)
	events := g.fileEvents()
	other := ca.Client(t, "other")
	for range 500 {
		replaceFile(t, chain, other.ChainPEM)
	}
	if e := events.next(); e.GetType() != adminv1.EventType_EVENT_TYPE_FILE_REFUSED {
		t.Fatalf("%v", e)
	}
	for range 500 {
		replaceFile(t, chain, other.ChainPEM)
	}
	replaceFile(t, key, other.KeyPEM)
	if e := events.next(); e.GetType() != adminv1.EventType_EVENT_TYPE_FILE_LOADED || e.GetRevision() != 2 {
		t.Errorf("%v", e)
	}
}

func TestABadFileDelaysNoOther(t *testing.T) {
	ca, dir := certstest.NewCA(t), t.TempDir()
	live, next := filepath.Join(dir, "live"), filepath.Join(dir, "next")
	for i, link := range []string{live, next} {
		version := filepath.Join(dir, fmt.Sprint("v", i))
		if err := os.Mkdir(version, 0o700); err != nil {
			t.Fatal(err)
		}
		symlink(t, filepath.Base(version), link)
	}
	g := start(t, "")
	var rs []store.Resource
	for _, name := range []string{"a", "b", "c"} {
		rs = append(rs, &adminv1.TrustBundle{Name: name, Source: &adminv1.TrustBundle_File{File: writeFile(t, filepath.Join(live, name+".pem"), ca.TrustPEM())}})
	}
	g.put(rs...)
	events := g.fileEvents()
	// All three files change at once: the link to their directory is replaced.
	other := certstest.NewCA(t).TrustPEM()
	writeFile(t, filepath.Join(next, "a.pem"), other)
	writeFile(t, filepath.Join(next, "b.pem"), []byte("-----BEGIN"))
	writeFile(t, filepath.Join(next, "c.pem"), other)
	rename(t, next, live)

	var changes []string
	for range 3 {
		e := events.next()
		changes = append(changes, fmt.Sprintf("%s %v %d", e.GetName(), e.GetType(), e.GetRevision()))
	}
	slices.Sort(changes)
	want := []string{"a EVENT_TYPE_FILE_LOADED 2", "b EVENT_TYPE_FILE_REFUSED 0", "c EVENT_TYPE_FILE_LOADED 2"}
	if !slices.Equal(changes, want) {
		t.Errorf("%v, want %v", changes, want)
	}
}

func TestUsersOfAMissingFileAreDownUntilItReturns(t *testing.T) {
	ca, dir := certstest.NewCA(t), t.TempDir()
	chain, key := flat(dir)
	one := ca.Client(t, "one")
	for path, content := range pair(dir, one) {
		writeFile(t, path, content)
	}
	g := start(t, "")
	g.put(fromFiles(t, ca, greeter(t, ca), chain, key)...)
	g.stop()
	os.Remove(key)

	g = start(t, g.dir)
	problems := map[string]string{}
	for _, p := range g.Status().GetProblems() {
		problems[p.GetName()] = p.GetReason()
	}
	if len(problems) != 2 || !strings.Contains(problems["client"], "no such file") || !strings.Contains(problems["up"], `certificate "client" is down`) {
		t.Errorf("%v", problems)
	}
	if c, err := net.Dial("tcp", g.address("l")); err == nil { // otherwise the connection was reset at once
		if rest, _ := io.ReadAll(c); len(rest) > 0 {
			t.Errorf("traffic continued: %q", rest)
		}
		c.Close()
	}
	events := g.fileEvents()
	replaceFile(t, key, one.KeyPEM)
	events.loaded("client")
	if got := g.identity("l"); got != "one" {
		t.Errorf("the next connection is made as %q", got)
	}
	if p := g.Status().GetProblems(); len(p) != 0 {
		t.Errorf("still down: %v", p)
	}
}

func TestAListenerWhoseFileReturnsIsDownIfItsPortIsTaken(t *testing.T) {
	ca, dir := certstest.NewCA(t), t.TempDir()
	front := ca.Server(t, "front.example")
	chain, key := flat(dir)
	for path, content := range pair(dir, front) {
		writeFile(t, path, content)
	}
	l := tcpListener("l", sockettest.Host()+":0")
	l.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g := start(t, "")
	g.put(append(bridgeTo(t, ca, "127.0.0.1:1"), l,
		&adminv1.Certificate{Name: "front", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: chain, PrivateKeyPath: key}}})...)
	l.Address = g.address("l")
	g.put(l)
	g.stop()
	os.Remove(key)
	taken, err := net.Listen("tcp", l.GetAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()

	g = start(t, g.dir)
	if reason := g.listener("l").GetReason(); !strings.Contains(reason, `certificate "front" is down`) {
		t.Errorf("down: %s", reason)
	}
	events := g.fileEvents()
	replaceFile(t, key, front.KeyPEM)
	events.loaded("front")
	if reason := g.listener("l").GetReason(); !strings.Contains(reason, "address already in use") {
		t.Errorf("down: %s", reason)
	}
	taken.Close()
	g.put(&adminv1.Upstream{Name: "unrelated", Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}})
	if s := g.listener("l"); s.GetState() != adminv1.ListenerState_LISTENER_STATE_UP {
		t.Errorf("%v", s)
	}
}

func TestFileRootMustBeADirectory(t *testing.T) {
	if _, err := Open(t.Context(), Options{DataDir: filepath.Join(t.TempDir(), "data"), FileRoots: []string{"/etc", ""}}); err == nil || !strings.Contains(err.Error(), "file root") {
		t.Errorf("%v", err)
	}
	roots, err := fileRoots(Options{DataDir: "data"})
	if err != nil || len(roots) != 2 || !filepath.IsAbs(roots[0]) || filepath.Base(roots[0]) != "data" || roots[1] != "/etc/drawbridge" {
		t.Errorf("%v, %v", roots, err)
	}
	if roots, err = fileRoots(Options{DataDir: "data", FileRoots: []string{}}); err != nil || len(roots) != 0 {
		t.Errorf("no roots became %v, %v", roots, err)
	}
}
