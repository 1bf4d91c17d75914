package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

// A gateway's state can be sealed, served, backed up, restored and rekeyed. No step
// leaves a private key in a file.
func TestAStateIsSealedAndRekeyed(t *testing.T) {
	ctx, dir := t.Context(), tempDir(t)
	key := writeFile(t, dir, "a.key", strings.Repeat("a", 64)+"\n")
	other := writeFile(t, dir, "b.key", strings.Repeat("b", 64)+"\n")
	data, restored := filepath.Join(dir, "data"), filepath.Join(dir, "restored")
	socket := "unix:" + filepath.Join(dir, "admin.sock")
	s := shell{env: map[string]string{"DRAWBRIDGE_ADMIN": socket, "DRAWBRIDGE_DATA_DIR": data}}
	credentials := t.TempDir()
	serving := func(dataDir string, args ...string) func() {
		g := start(t, map[string]string{"CREDENTIALS_DIRECTORY": credentials}, append([]string{"serve", "--data-dir", dataDir, "--admin", socket}, args...)...)
		g.log.until(t, "ready: version", 1)
		return func() {
			if code := g.stop(); code != 0 {
				t.Errorf("serve ended with %d", code)
			}
		}
	}

	stop := serving(data)
	s.run(ctx, "pki", "init", "--dir", filepath.Join(dir, "ca")).want(t, exit.OK)
	s.run(ctx, "pki", "issue", "web", "--dir", filepath.Join(dir, "ca"), "--dns", "web.internal").want(t, exit.OK)
	private := readFile(t, filepath.Join(dir, "ca", "web-key.pem"))
	yaml := "kind: Certificate\nname: web\npem:\n  certificateChain: |\n    " + strings.ReplaceAll(readFile(t, filepath.Join(dir, "ca", "web.pem")), "\n", "\n    ") +
		"\n  privateKey: |\n    " + strings.ReplaceAll(private, "\n", "\n    ") + "\n"
	s.run(ctx, "apply", "-f", writeFile(t, dir, "web.yaml", yaml)).want(t, exit.OK)
	secret := strings.Split(private, "\n")[1]
	holds := func(path string) bool { return strings.Contains(readFile(t, path), secret) }
	if !holds(filepath.Join(data, "state.db")) {
		t.Fatal("the test does not find the private key in an unsealed state")
	}
	before := s.run(ctx, "get", "all", "-o", "json").out
	s.run(ctx, "store", "seal", "--seal-key-file", key).want(t, exit.Failure, "holds this data directory")
	stop()

	s.run(ctx, "store", "seal").want(t, exit.Usage, "--seal-key-file is missing")
	s.run(ctx, "store", "seal", "--seal-key-file", key, "--data-dir", dir+"/none").want(t, exit.Failure, "holds no state")
	s.run(ctx, "serve", "--seal-key-file", key).want(t, exit.Failure, "is not sealed", `"drawbridge store seal"`)
	for range 2 {
		s.run(ctx, "store", "seal", "--seal-key-file", key).want(t, exit.OK, "Revision 1 is sealed: 1 resource, 1 stored revision. Start")
	}
	s.run(ctx, "store", "check").want(t, exit.OK, "Revision 1 is sound", "Only its checksums")
	if out := s.run(ctx, "store", "check", "--seal-key-file", key); strings.Contains(out.out, "Only") || out.code != exit.OK {
		t.Errorf("%+v", out)
	}
	s.run(ctx, "store", "check", "--seal-key-file", other).want(t, exit.Failure, "sealed with a different key")
	s.run(ctx, "serve").want(t, exit.Failure, "is sealed: give its key with --seal-key-file")
	s.run(ctx, "serve", "--seal-key-file", other).want(t, exit.Failure, "sealed with a different key")

	stop = serving(data, "--seal-key-file", key)
	s.run(ctx, "status").want(t, exit.OK, ", store sealed\n")
	s.run(ctx, "status", "-o", "json").want(t, exit.OK, `"sealed": true`)
	backup := writeFile(t, dir, "state.backup", s.run(ctx, "backup").out)
	stop()
	s.run(ctx, "restore", backup, "--data-dir", restored, "--seal-key-file", other).want(t, exit.Failure, "the backup is sealed with a different key")
	s.run(ctx, "restore", backup, "--data-dir", restored).want(t, exit.OK, "1 stored revision, sealed.")

	s.run(ctx, "store", "rekey", "--seal-key-file", key, "--data-dir", restored).want(t, exit.Usage, "--new-seal-key-file is missing")
	s.run(ctx, "store", "rekey", "--seal-key-file", other, "--new-seal-key-file", other+"x", "--data-dir", restored).want(t, exit.Failure, "no such file")
	for range 2 {
		s.run(ctx, "store", "rekey", "--seal-key-file", key, "--new-seal-key-file", other, "--data-dir", restored).want(t, exit.OK, "is sealed with the new key")
	}
	for _, path := range []string{filepath.Join(data, "state.db"), filepath.Join(restored, "state.db"), backup} {
		if holds(path) {
			t.Errorf("%s holds the private key", path)
		}
	}
	// Without the flag, the program uses the systemd credential.
	writeFile(t, credentials, "drawbridge.seal-key", strings.Repeat("b", 64))
	stop = serving(restored)
	if after := s.run(ctx, "get", "all", "-o", "json").out; after != before {
		t.Errorf("restored:\n%s\nwant\n%s", after, before)
	}
	stop()
}

func TestTheSealKeyFileIsChecked(t *testing.T) {
	dir := tempDir(t)
	key := writeFile(t, dir, "seal.key", "not a key\n")
	serve := func() result {
		return shell{}.run(t.Context(), "serve", "--data-dir", filepath.Join(dir, "data"), "--seal-key-file", key)
	}
	serve().want(t, exit.Failure, key+" must hold 32 bytes as 64 hexadecimal digits", "openssl rand -hex 32")
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	serve().want(t, exit.Failure, key+" has mode 0640", "chmod 0600 "+key)
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("a data directory was created")
	}
}
