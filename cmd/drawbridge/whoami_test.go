package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestWhoamiShowsTheRoleAndTheSubjects(t *testing.T) {
	st := text(t, &adminv1.GetStatusResponse{}, `caller { principal: "cert:CN=ci" transport: TRANSPORT_TCP role: ROLE_OPERATOR
		rights: RIGHT_READ rights: RIGHT_WRITE rights: RIGHT_OPERATE subjects: "spiffe://corp/ci" subjects: "CN=ci\x1b[2J" }`)
	sh := serveFake(t, fakeAdmin{status: fakeStatus{status: st}})
	got := sh.run(t.Context(), "whoami")
	got.want(t, exit.OK, "cert:CN=ci, operator (READ, WRITE, OPERATE)\n  spiffe://corp/ci\n  CN=ci")
	if strings.Contains(got.out, "\x1b") {
		t.Errorf("a control character of a certificate reaches the terminal: %q", got.out)
	}
	sh.run(t.Context(), "whoami", "-o", "json").want(t, exit.OK, `"role": "OPERATOR"`)
}

// The user that runs the gateway is always an admin, so that no policy locks out all
// callers. With an invalid policy the gateway does not start. A later invalid policy
// has no effect.
func TestThePolicyIsReadAtStartAndOnSIGHUP(t *testing.T) {
	dir := tempDir(t)
	policy := writeFile(t, dir, "policy.yaml", "subjects:\n  uid:4000000000: viewer\n")
	r, sh := serve(t, "--admin-policy", policy)
	sh.run(t.Context(), "whoami").want(t, exit.OK, "uid:"+strconv.Itoa(os.Geteuid())+", admin (READ, WRITE, SECRET, OPERATE)")

	writeFile(t, dir, "policy.yaml", "subjects:\n  uid:4000000000: emperor\n")
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.log.until(t, "the policy of the admin service is invalid; keeping the current one", 1)
	sh.run(t.Context(), "status").want(t, exit.OK, "the last valid policy stays in force", "must be viewer, operator or admin")

	writeFile(t, dir, "policy.yaml", "subjects: {}\n")
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.log.until(t, "policy of the admin service loaded", 1)
	if got := sh.run(t.Context(), "status"); strings.Contains(got.out, "policy") {
		t.Errorf("the warning stays: %s", got.out)
	}

	data := filepath.Join(dir, "other")
	for _, file := range []string{filepath.Join(dir, "none"), writeFile(t, dir, "bad.yaml", "subjects:\n  root: admin\n")} {
		shell{}.run(t.Context(), "serve", "--data-dir", data, "--admin-policy", file).want(t, exit.Failure, "policy "+file)
	}
}
