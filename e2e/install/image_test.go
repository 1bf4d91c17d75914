package install

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A descriptor points to a blob of an OCI layout.
type descriptor struct {
	MediaType, Digest string
	Size              int64
	Annotations       map[string]string
	Platform          struct{ OS, Architecture string }
}

// An imageConfig says how an image is run.
type imageConfig struct {
	OS, Architecture string
	Created          time.Time
	Config           struct {
		User, StopSignal     string
		Env, Entrypoint, Cmd []string
		Volumes              map[string]struct{}
		Labels               map[string]string
		Healthcheck          struct{ Test []string }
	}
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	}
}

// An ociLayout has the files of an image in an OCI layout.
type ociLayout struct {
	t     testing.TB
	files map[string][]byte
}

func openImage(t testing.TB, path string) ociLayout {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := ociLayout{t, make(map[string][]byte)}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return l
		}
		if err != nil {
			t.Fatal(err)
		}
		var content bytes.Buffer
		if _, err := io.Copy(&content, r); err != nil {
			t.Fatal(err)
		}
		l.files[h.Name] = content.Bytes()
	}
}

// blob returns a blob, which must have its digest and size.
func (l ociLayout) blob(d descriptor) []byte {
	l.t.Helper()
	content := l.files["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
	if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(content)); sum != d.Digest || int64(len(content)) != d.Size {
		l.t.Fatalf("the blob %s has the digest %s and %d bytes", d.Digest, sum, len(content))
	}
	return content
}

func parse(t testing.TB, data []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(data, to); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

// image extracts the image for an architecture into a directory, and returns how it is
// run. It checks every digest on the way.
func (l ociLayout) image(arch, dir string) imageConfig {
	l.t.Helper()
	var index, platforms struct{ Manifests []descriptor }
	parse(l.t, l.files["index.json"], &index)
	if len(index.Manifests) != 1 || index.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "drawbridge:"+os.Getenv("VERSION") {
		l.t.Fatalf("the layout has %v", index.Manifests)
	}
	parse(l.t, l.blob(index.Manifests[0]), &platforms)
	if len(platforms.Manifests) != 2 {
		l.t.Fatalf("the image is for %v", platforms.Manifests)
	}
	for _, m := range platforms.Manifests {
		if m.Platform.OS != "linux" || m.Platform.Architecture != arch {
			continue
		}
		var manifest struct {
			Config descriptor
			Layers []descriptor
		}
		parse(l.t, l.blob(m), &manifest)
		var config imageConfig
		parse(l.t, l.blob(manifest.Config), &config)
		if len(manifest.Layers) != len(config.RootFS.DiffIDs) {
			l.t.Fatalf("%d layers and %d diff IDs", len(manifest.Layers), len(config.RootFS.DiffIDs))
		}
		for i, layer := range manifest.Layers {
			l.extract(l.blob(layer), config.RootFS.DiffIDs[i], dir)
		}
		return config
	}
	l.t.Fatalf("the image is not for %s", arch)
	return imageConfig{}
}

// extract extracts a layer with its modes and owners.
func (l ociLayout) extract(compressed []byte, diffID, dir string) {
	l.t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		l.t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		l.t.Fatal(err)
	}
	if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(text)); sum != diffID {
		l.t.Fatalf("a layer has the digest %s, want %s", sum, diffID)
	}
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			l.t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.Mkdir(path, 0o755)
		} else {
			content, read := io.ReadAll(r)
			err = errors.Join(read, os.WriteFile(path, content, 0o644))
		}
		if err := errors.Join(err, os.Lchown(path, h.Uid, h.Gid), os.Chmod(path, h.FileInfo().Mode())); err != nil {
			l.t.Fatal(err)
		}
	}
}

// The image runs as its own user, not as root, and becomes ready. Its health check
// reports that.
func TestTheImageRuns(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run an image as another user")
	}
	arch, _ := architecture(t)
	l := openImage(t, released(t, "drawbridge-image.tar"))
	dir := imageRoot(t)
	config := l.image(arch, dir)

	if c := config.Config; c.User != "65532:65532" || c.StopSignal != "SIGTERM" || strings.Join(c.Entrypoint, " ") != "/usr/bin/drawbridge" || strings.Join(c.Cmd, " ") != "serve" {
		t.Errorf("the image is run as %+v", c)
	}
	if _, ok := config.Config.Volumes["/var/lib/drawbridge"]; !ok || len(config.Config.Volumes) != 1 {
		t.Errorf("the volumes are %v", config.Config.Volumes)
	}
	for label, want := range map[string]string{"title": "drawbridge", "version": os.Getenv("VERSION"), "revision": os.Getenv("COMMIT"), "licenses": "Apache-2.0"} {
		if got := config.Config.Labels["org.opencontainers.image."+label]; got != want {
			t.Errorf("the label %s is %q, want %q", label, got, want)
		}
	}
	if got := fmt.Sprint(config.Created.Unix()); got != os.Getenv("SOURCE_DATE_EPOCH") {
		t.Errorf("the image was created at %s", got)
	}
	for path, want := range map[string]string{"usr/bin/drawbridge": "-rwxr-xr-x 0", "var/lib/drawbridge": "drwx------ 65532", "etc/drawbridge": "drwxr-xr-x 0", "etc/ssl/certs/ca-certificates.crt": "-rw-r--r-- 0"} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(info.Mode(), " ", info.Sys().(*syscall.Stat_t).Uid); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}

	check := append([]string{}, config.Config.Healthcheck.Test[1:]...)
	if kind := config.Config.Healthcheck.Test[0]; kind != "CMD" {
		t.Fatalf("the health check is %s %s", kind, check)
	}
	healthy := func() error { return config.cmd(t, dir, check...).Run() }
	if healthy() == nil {
		t.Error("the health check succeeds without a gateway")
	}
	c := config.start(t, dir, append(config.Config.Entrypoint, config.Config.Cmd...)...)
	eventually(t, "the container is healthy", func() bool { return healthy() == nil })
	// The authorities of the image verify public servers.
	if err := config.cmd(t, dir, "/usr/bin/drawbridge", "apply", "-f", writeTo(t, dir, "etc/drawbridge/system.yaml", "kind: TrustBundle\nname: system\nsystem: {}\n")).Run(); err != nil {
		t.Errorf("a trust bundle of the system's roots: %v", err)
	}
	c.stop()
	if healthy() == nil {
		t.Error("the health check succeeds after the gateway has stopped")
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[arch]
	if c := l.image(other, imageRoot(t)); c.Architecture != other || c.OS != "linux" {
		t.Errorf("the image for %s is for %s %s", other, c.OS, c.Architecture)
	}
}

// imageRoot returns a new directory that other users can enter.
func imageRoot(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// writeTo writes a file below a root and returns its path there.
func writeTo(t testing.TB, dir, path, content string) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, path), []byte(content), fs.FileMode(0o644)); err != nil {
		t.Fatal(err)
	}
	return "/" + path
}

// cmd returns a command that runs in the root of the image as its user, with its
// environment and nothing else.
func (c imageConfig) cmd(t testing.TB, dir string, args ...string) *exec.Cmd {
	t.Helper()
	user, group, _ := strings.Cut(c.Config.User, ":")
	uid, err := strconv.ParseUint(user, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(group, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{
		Path: args[0], Args: args, Dir: "/", Env: c.Config.Env,
		SysProcAttr: &syscall.SysProcAttr{
			Chroot: dir, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Pdeathsig: syscall.SIGKILL,
		},
	}
}

// A container is a process that runs in a root.
type container struct {
	t      testing.TB
	cmd    *exec.Cmd
	log    *os.File
	exited chan struct{}
}

// start starts a command in the root of the image.
func (c imageConfig) start(t testing.TB, dir string, args ...string) *container {
	t.Helper()
	return startContainer(t, c.cmd(t, dir, args...))
}

func startContainer(t testing.TB, cmd *exec.Cmd) *container {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	c := &container{t, cmd, log, make(chan struct{})}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // stop reads the exit code
		close(c.exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-c.exited
		if t.Failed() {
			t.Logf("the container's log:\n%s", c.output())
		}
		log.Close()
	})
	return c
}

// output returns what the container has printed.
func (c *container) output() string {
	text, err := os.ReadFile(c.log.Name())
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// stop stops the container as an engine does. It must exit with 0.
func (c *container) stop() {
	c.t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	select {
	case <-c.exited:
	case <-time.After(2 * testTimeout):
		c.t.Fatal("the container does not stop")
	}
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		c.t.Errorf("the container exited with %d", code)
	}
}
