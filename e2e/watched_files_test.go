// Watched files are loaded once they are a matching pair, whatever way they
// were written. A pair that does not match is reported once for each content,
// not at each check, and never becomes live.

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestWatchedFiles(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	raw := serveIdentity(t, a.serverConfig(t))
	g := startGateway(t)
	dir := filepath.Join(g.dir, "files")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	chain, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeFile(t, chain, a.client.ChainPEM)
	writeFile(t, key, a.client.KeyPEM)
	g.apply(
		trustBundle("ca", a.ca), upstream("raw", a.settings(), raw), listener("raw", protocolTCP, "raw"),
		&adminv1.Certificate{Name: "client", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: chain, PrivateKeyPath: key}}},
	)
	events := g.watchEvents()
	// expect checks the identity of the next connection, and the number of events
	// of kind since the last call.
	seen := 0
	expect := func(what, identity string, last adminv1.EventType, refused int) {
		t.Helper()
		events.await(last)
		if got := seenTCP(t, g, "raw"); got == "" || got[:len(identity)] != identity {
			t.Errorf("%s: the upstream saw %q, want %s", what, got, identity)
		}
		got := 0
		for _, e := range events.all[seen:] {
			if e.GetType() == adminv1.EventType_EVENT_TYPE_FILE_REFUSED {
				got++
			}
		}
		if seen = len(events.all); got > refused {
			t.Errorf("%s: %d refusals were reported: %v", what, got, events.all)
		}
	}
	loaded, refused := adminv1.EventType_EVENT_TYPE_FILE_LOADED, adminv1.EventType_EVENT_TYPE_FILE_REFUSED

	one := clientCert(t, a.ca, "one")
	writeFile(t, chain, one.ChainPEM)
	expect("a chain without its key", "e2e client", refused, 1)
	for range 20 { // the same content is not reported again
		writeFile(t, chain, one.ChainPEM)
	}
	writeFile(t, key, one.KeyPEM)
	expect("then its key", "one", loaded, 0)

	two := clientCert(t, a.ca, "two")
	half := writeFile(t, filepath.Join(dir, ".swap"), two.ChainPEM[:100])
	if err := os.Rename(half, chain); err != nil {
		t.Fatal(err)
	}
	expect("half a chain", "one", refused, 1)
	for file, data := range map[string][]byte{chain: two.ChainPEM, key: two.KeyPEM} { // the way editors write files
		if err := os.Rename(writeFile(t, filepath.Join(dir, ".swap"), data), file); err != nil {
			t.Fatal(err)
		}
	}
	expect("renamed into place", "two", loaded, 1)

	for _, path := range []string{chain, key} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	expect("removed", "two", refused, 2)
	three := clientCert(t, a.ca, "three")
	writeFile(t, key, three.KeyPEM)
	writeFile(t, chain, three.ChainPEM)
	expect("made again", "three", loaded, 2)

	// The gateway does not wait for the writer of a pipe.
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(key, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("a pipe", "three", refused, 2)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}

	// After a hundred consecutive rotations, the last certificate is live.
	var last string
	for i := range 100 {
		last = fmt.Sprint("quick ", i)
		quick := clientCert(t, a.ca, last)
		writeFile(t, chain, quick.ChainPEM)
		writeFile(t, key, quick.KeyPEM)
	}
	eventually(t, "the last of many rotations is live", func() bool {
		got := seenTCP(t, g, "raw")
		return len(got) > len(last) && got[:len(last)] == last
	})
	if problems := g.getStatus().GetProblems(); len(problems) != 0 {
		t.Errorf("problems: %v", problems)
	}
	// A write by the admin service replaces the files.
	g.apply(certificate("client", clientCert(t, a.ca, "put")))
	revision := g.getStatus().GetRevision()
	writeFile(t, chain, a.client.ChainPEM)
	writeFile(t, key, a.client.KeyPEM)
	g.apply(listener("other", protocolTCP, "raw")) // another event
	if got := seenTCP(t, g, "raw"); got[:3] != "put" || g.getStatus().GetRevision() != revision+1 {
		t.Errorf("the upstream saw %q in revision %d", got, g.getStatus().GetRevision())
	}
}
