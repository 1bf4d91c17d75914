// The commands in docs/nginx.md that make certificates with OpenSSL and with
// our own tool make files that a real nginx and the gateway accept unchanged.

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestCertificateCommandsOfTheNginxPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/nginx.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"openssl", "drawbridge"} {
		t.Run(tool, func(t *testing.T) {
			t.Parallel()
			if tool == "openssl" {
				need(t, tool)
			}
			block := regexp.MustCompile("(?s)```sh " + tool + "\n(.*?)```").FindSubmatch(page)
			if block == nil {
				t.Fatalf("the page has no commands for %s", tool)
			}
			dir := t.TempDir()
			bin := t.TempDir()
			if err := os.Symlink(program(t), filepath.Join(bin, "drawbridge")); err != nil {
				t.Fatal(err)
			}
			sh := exec.CommandContext(longContext(t), "sh", "-eu", "-c", string(block[1]))
			sh.Dir = dir
			sh.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			if out, err := sh.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}

			n := startNginx(t, nginxConfig{
				ports: 1,
				http: func(n *nginx) string {
					return fmt.Sprintf(`server {
    listen %s ssl;
    ssl_certificate %[2]s/backend.pem;
    ssl_certificate_key %[2]s/backend-key.pem;
    ssl_client_certificate %[2]s/ca.pem;
    ssl_verify_client on;
    return 200 "$ssl_client_verify $ssl_client_s_dn";
  }`, n.address(0), dir)
				},
			})
			g := startGateway(t, "--file-root", dir)
			g.apply(
				&adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_File{File: filepath.Join(dir, "ca.pem")}},
				&adminv1.Certificate{Name: "client", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{
					CertificatePath: filepath.Join(dir, "gateway.pem"),
					PrivateKeyPath:  filepath.Join(dir, "gateway-key.pem"),
				}}},
				upstream("web", &adminv1.UpstreamTls{Certificate: "client", TrustBundles: []string{"ca"}, ServerName: serverName}, n.address(0)),
				listener("web", protocolHTTP, "web"),
			)
			if code, body := get(t, "http://"+g.address("web")+"/"); code != 200 || body != "SUCCESS CN=gateway" {
				t.Errorf("%d %q", code, body)
			}
		})
	}
}
