// If the store cannot be read, the program does not start. It prints a clear
// error, and the store stays unchanged.

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/proto"
)

func TestCorruptStoreIsRejectedAndUnchanged(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	a := newAuthority(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), listener("web", protocolHTTP, ""))
	for i := range 20 { // enough data that every part of the file is used
		many := make([]proto.Message, 0, 50)
		for j := range cap(many) {
			r := forward(fmt.Sprintf("r-%d-%d", i, j), "web", fmt.Sprintf("/%d/%d/", i, j), "")
			r.Action = &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: strings.Repeat("x", 500)}}
			many = append(many, r)
		}
		g.apply(many...)
	}
	g.stop()
	good, err := os.ReadFile(storeFile(t, g.dir))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(storeFile(t, g.dir))

	for what, damage := range map[string]func([]byte) []byte{
		"cut off early":       func(b []byte) []byte { return b[:100] },
		"cut in half":         func(b []byte) []byte { return b[:len(b)/2] },
		"overwritten":         func(b []byte) []byte { return bytes.Repeat([]byte("not a store\n"), len(b)/12) },
		"overwritten by zero": func(b []byte) []byte { return make([]byte, len(b)) },
		"begins with rubbish": func(b []byte) []byte { copy(b, bytes.Repeat([]byte{0xa5}, 2*os.Getpagesize())); return b },
		"ends with rubbish": func(b []byte) []byte {
			for i := 2 * os.Getpagesize(); i < len(b); i++ {
				b[i] ^= 0x5a
			}
			return b
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(shortDir(t), "data")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			damaged := damage(bytes.Clone(good))
			path := writeFile(t, filepath.Join(dir, name), damaged)

			r := command(t, program(t), "serve", "--data-dir", dir, "--admin", "unix:"+filepath.Join(filepath.Dir(dir), "admin.sock"))
			said := r.stdout + r.stderr
			if r.code == 0 || !strings.Contains(said, path) {
				t.Errorf("the error does not name the file: %s", r)
			}
			for _, bad := range []string{"goroutine ", "panic", "unexpected fault", "SIGBUS", "SIGSEGV", "PRIVATE KEY"} {
				if strings.Contains(said, bad) {
					t.Errorf("it printed %q: %s", bad, r)
				}
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, damaged) {
				t.Errorf("the file was changed, or is gone: %v", err)
			}
		})
	}
}
