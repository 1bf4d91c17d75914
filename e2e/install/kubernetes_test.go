package install

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

const manifests = "../../deploy/kubernetes/"

// A probe is a request of the kubelet.
type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

// An object is the part of a Kubernetes object that the tests read.
type object struct {
	Kind     string
	Metadata struct {
		Name   string
		Labels map[string]string
	}
	Data map[string]string // the data of a ConfigMap
	Spec struct {
		Selector yaml.Node
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     pod
		}
		PodSelector struct { // the pods of a NetworkPolicy
			MatchLabels map[string]string `yaml:"matchLabels"`
		} `yaml:"podSelector"`
		Ingress []struct{ Ports []struct{ Port string } } // the rules of a NetworkPolicy
		Ports   []struct {                                // the ports of a Service
			Name       string
			TargetPort string `yaml:"targetPort"`
		}
		Endpoints []struct{ Port, Path string } // the endpoints of a ServiceMonitor
	}
}

// A pod is the part of a Deployment that runs.
type pod struct {
	TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
	SecurityContext               struct {
		RunAsNonRoot bool `yaml:"runAsNonRoot"`
		RunAsUser    int  `yaml:"runAsUser"`
		RunAsGroup   int  `yaml:"runAsGroup"`
		FSGroup      int  `yaml:"fsGroup"`
	} `yaml:"securityContext"`
	Containers []struct {
		Args  []string
		Env   []struct{ Name, Value string }
		Ports []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}
		StartupProbe    probe `yaml:"startupProbe"`
		LivenessProbe   probe `yaml:"livenessProbe"`
		ReadinessProbe  probe `yaml:"readinessProbe"`
		SecurityContext struct {
			ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
			AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		} `yaml:"securityContext"`
		Lifecycle struct {
			PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
		}
		VolumeMounts []struct {
			Name      string
			MountPath string `yaml:"mountPath"`
			ReadOnly  bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	Volumes []struct {
		Name      string
		EmptyDir  *struct{} `yaml:"emptyDir"`
		ConfigMap *struct{ Name string }
		Secret    *struct {
			SecretName  string `yaml:"secretName"`
			DefaultMode int    `yaml:"defaultMode"`
		}
	}
}

// objects reads the objects of the manifests by kind and name.
func objects(t testing.TB) map[string]*object {
	t.Helper()
	all := make(map[string]*object)
	files, err := filepath.Glob(manifests + "*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
			var o object
			if err := dec.Decode(&o); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			all[o.Kind+" "+o.Metadata.Name] = &o
		}
	}
	return all
}

// Every selector selects the pods of the Deployment, or the Service that it is meant for,
// and every port that is named exists.
func TestKubernetesObjectsFitTogether(t *testing.T) {
	all := objects(t)
	d := all["Deployment drawbridge"]
	labels, c := d.Spec.Template.Metadata.Labels, d.Spec.Template.Spec.Containers[0]
	selects := func(what string, selector, labels map[string]string) {
		if len(selector) == 0 {
			t.Errorf("%s selects everything", what)
		}
		for k, v := range selector {
			if labels[k] != v {
				t.Errorf("%s selects %s=%s, and the labels are %v", what, k, v, labels)
			}
		}
	}
	nested := func(o *object) map[string]string {
		var s struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		if err := o.Spec.Selector.Decode(&s); err != nil {
			t.Fatal(err)
		}
		return s.MatchLabels
	}
	ports := make(map[string]bool)
	for _, p := range c.Ports {
		ports[p.Name] = true
	}
	named := func(what, port string) {
		if !ports[port] {
			t.Errorf("%s names the port %q, and the container has %v", what, port, ports)
		}
	}
	selects("the Deployment", nested(d), labels)
	selects("the PodDisruptionBudget", nested(all["PodDisruptionBudget drawbridge"]), labels)
	selects("the NetworkPolicy", all["NetworkPolicy drawbridge"].Spec.PodSelector.MatchLabels, labels)
	for _, rule := range all["NetworkPolicy drawbridge"].Spec.Ingress {
		for _, p := range rule.Ports {
			named("the NetworkPolicy", p.Port)
		}
	}
	for _, name := range []string{"drawbridge", "drawbridge-ops"} {
		s := all["Service "+name]
		var selector map[string]string
		if err := s.Spec.Selector.Decode(&selector); err != nil {
			t.Fatal(err)
		}
		selects("the Service "+name, selector, labels)
		for _, p := range s.Spec.Ports {
			named("the Service "+name, p.TargetPort)
		}
	}
	m, ops := all["ServiceMonitor drawbridge"], all["Service drawbridge-ops"]
	selects("the ServiceMonitor", nested(m), ops.Metadata.Labels)
	if m.Spec.Endpoints[0].Port != ops.Spec.Ports[0].Name {
		t.Errorf("the ServiceMonitor reads the port %s", m.Spec.Endpoints[0].Port)
	}
	for what, p := range map[string]probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		named("the "+what+" probe", p.HTTPGet.Port)
	}
	drain := 0
	for _, arg := range c.Args {
		_, _ = fmt.Sscanf(arg, "--drain-timeout=%ds", &drain)
	}
	if grace := d.Spec.Template.Spec.TerminationGracePeriodSeconds; drain == 0 || grace <= drain+c.Lifecycle.PreStop.Sleep.Seconds {
		t.Errorf("a pod has %d s to stop, sleeps %d s and drains %d s", grace, c.Lifecycle.PreStop.Sleep.Seconds, drain)
	}
	for _, v := range d.Spec.Template.Spec.Volumes {
		if v.ConfigMap != nil && all["ConfigMap "+v.ConfigMap.Name] == nil {
			t.Errorf("there is no ConfigMap %s", v.ConfigMap.Name)
		}
	}
}

// podScript runs a program as a pod runs it: with its volumes mounted into the image, which
// is read-only, as its user and groups, and without any way to gain rights.
//
// usage: ROOT USER GROUP FSGROUP [VOLUME PATH rw|ro]… -- PROGRAM ARGUMENT…
const podScript = `set -e
root=$1 user=$2 group=$3 fsgroup=$4
shift 4
mount --bind "$root" "$root"
while [ "$1" != -- ]; do
	mount --bind "$1" "$root$2"
	[ "$3" = rw ] || mount -o remount,bind,ro "$root$2"
	shift 3
done
shift
mount -o remount,bind,ro "$root"
exec /usr/bin/setpriv --no-new-privs /usr/sbin/chroot --userspec="$user:$group" --groups="$fsgroup" "$root" "$@"
`

// A runningPod has the directories of a pod.
type runningPod struct {
	*testing.T
	root  string            // the image
	dirs  map[string]string // by the name of the volume
	spec  pod
	image imageConfig
}

// cmd returns a command in the pod.
func (p *runningPod) cmd(args ...string) *exec.Cmd {
	sc := p.spec.SecurityContext
	line := []string{"--mount", "sh", "-c", podScript, "sh", p.root, fmt.Sprint(sc.RunAsUser), fmt.Sprint(sc.RunAsGroup), fmt.Sprint(sc.FSGroup)}
	for _, m := range p.spec.Containers[0].VolumeMounts {
		line = append(line, p.dirs[m.Name], m.MountPath, map[bool]string{true: "ro", false: "rw"}[m.ReadOnly])
	}
	cmd := exec.Command("/usr/bin/unshare", append(append(line, "--"), args...)...)
	cmd.Env = p.image.Config.Env
	for _, v := range p.spec.Containers[0].Env {
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// publish makes the files of a ConfigMap or Secret visible as the kubelet does: by one
// rename of a symbolic link to their directory.
func (p *runningPod) publish(volume string, mode fs.FileMode, files map[string]string) {
	p.Helper()
	dir := p.dirs[volume]
	version, err := os.MkdirTemp(dir, "..version")
	if err != nil {
		p.Fatal(err)
	}
	group := p.spec.SecurityContext.FSGroup
	check := func(err error) {
		p.Helper()
		if err != nil {
			p.Fatal(err)
		}
	}
	check(os.Chown(version, 0, group))
	check(os.Chmod(version, 0o755|fs.ModeSetgid))
	for name, content := range files {
		file := filepath.Join(version, name)
		check(os.WriteFile(file, []byte(content), mode))
		check(os.Chown(file, 0, group))
		check(os.Chmod(file, mode))
		if link := filepath.Join(dir, name); !(&root{p.T, dir}).exists(name) {
			check(os.Symlink("..data/"+name, link))
		}
	}
	next := filepath.Join(dir, "..data_tmp")
	check(os.Symlink(filepath.Base(version), next))
	check(os.Rename(next, filepath.Join(dir, "..data")))
}

// The Deployment's pod runs with the permissions that Kubernetes gives to its mounts,
// becomes ready, bridges to an upstream with mutual TLS, follows a renewed Secret and
// stops in time.
func TestPodOfTheDeployment(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	for _, program := range []string{"/usr/bin/unshare", "/usr/bin/setpriv", "/usr/sbin/chroot"} {
		need(t, program)
	}
	all := objects(t)
	spec := all["Deployment drawbridge"].Spec.Template.Spec
	group := spec.SecurityContext.FSGroup
	for name, v := range map[string]struct {
		group int
		mode  fs.FileMode
	}{
		"an emptyDir with fsGroup": {group, 0o777 | fs.ModeSetgid}, "an emptyDir without fsGroup": {0, 0o777}, "a claim with fsGroup": {group, 0o770 | fs.ModeSetgid},
	} {
		t.Run(name, func(t *testing.T) {
			arch, _ := architecture(t)
			p := &runningPod{T: t, root: imageRoot(t), dirs: make(map[string]string), spec: spec}
			p.image = openImage(t, released(t, "drawbridge-image.tar")).image(arch, p.root)
			for _, volume := range spec.Volumes {
				owner, mode := group, 0o777|fs.ModeSetgid|fs.ModeSticky
				if volume.EmptyDir != nil {
					owner, mode = v.group, v.mode
				}
				p.dirs[volume.Name] = imageRoot(t)
				if err := os.Chown(p.dirs[volume.Name], 0, owner); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(p.dirs[volume.Name], mode); err != nil {
					t.Fatal(err)
				}
			}
			for _, m := range spec.Containers[0].VolumeMounts {
				if err := os.MkdirAll(filepath.Join(p.root, m.MountPath), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			p.test(all["ConfigMap drawbridge"].Data["drawbridge.yaml"])
		})
	}
}

// test starts the pod with a configuration and tests it.
func (p *runningPod) test(config string) {
	t, c := p.T, p.spec.Containers[0]
	if sc := p.spec.SecurityContext; !sc.RunAsNonRoot || fmt.Sprintf("%d:%d", sc.RunAsUser, sc.RunAsGroup) != p.image.Config.User ||
		!c.SecurityContext.ReadOnlyRootFilesystem || c.SecurityContext.AllowPrivilegeEscalation == nil || *c.SecurityContext.AllowPrivilegeEscalation {
		t.Errorf("the pod runs as %+v, the image as %s", sc, p.image.Config.User)
	}
	ca, err := pki.NewRoot(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	issue := func(name string) *pki.Issued {
		leaf, err := ca.Issue(pki.LeafOptions{CommonName: name, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Usage: pki.Both})
		if err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.RootPEM())
	upstream := serveMutualTLS(t, issue("shop"), pool)

	// Only addresses are replaced: they depend on the cluster and on this machine.
	config = regexp.MustCompile(`(?m)^dns: .*$`).ReplaceAllString(config, `endpoints: [{address: "`+upstream+`"}]`)
	config = strings.Replace(config, `address: ":8443"`, "address: 127.0.0.1:0", 1)
	p.publish("config", 0o644, map[string]string{"drawbridge.yaml": config})
	var secretMode fs.FileMode
	for _, v := range p.spec.Volumes {
		if v.Secret != nil {
			secretMode = fs.FileMode(v.Secret.DefaultMode)
		}
	}
	if secretMode != 0o440 {
		t.Errorf("the mode of the Secret's files is %v", secretMode)
	}
	secret := func(name string) {
		leaf := issue(name)
		p.publish("tls", secretMode, map[string]string{"tls.crt": string(leaf.ChainPEM), "tls.key": string(leaf.KeyPEM), "ca.crt": string(ca.RootPEM())})
	}
	secret("first")
	line := append([]string{}, p.image.Config.Entrypoint...)
	for _, arg := range c.Args {
		line = append(line, strings.Replace(arg, "--ops=:9090", "--ops=127.0.0.1:0", 1))
	}
	running := startContainer(t, p.cmd(line...))
	logged := func(what string) string {
		find := regexp.MustCompile(`"@message":"` + what + `".*?"address":"([^"]+)"`)
		var m []string
		eventually(t, "the log says "+what, func() bool {
			m = find.FindStringSubmatch(running.output())
			return m != nil
		})
		return m[1]
	}
	ops := logged("ops up")
	answers := func(pr probe) bool {
		resp, err := http.Get("http://" + ops + pr.HTTPGet.Path)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	for what, pr := range map[string]probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		eventually(t, "the "+what+" probe succeeds", func() bool { return answers(pr) })
	}
	runCmd(t, p.cmd(p.image.Config.Entrypoint[0], "status", "--ready")) // as kubectl exec does

	web := logged("listener up")
	presented := func() string {
		client := http.Client{Timeout: testTimeout, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
		resp, err := client.Get("https://" + web + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" {
			t.Fatalf("%s %q %v", resp.Status, body, err)
		}
		return resp.TLS.PeerCertificates[0].Subject.CommonName
	}
	if name := presented(); name != "first" {
		t.Errorf("the gateway presents %s", name)
	}
	secret("second")
	eventually(t, "the gateway presents the renewed certificate", func() bool { return presented() == "second" })

	info, err := os.Stat(filepath.Join(p.dirs["data"], "drawbridge"))
	if err != nil {
		t.Fatal(err)
	}
	if uid := int(info.Sys().(*syscall.Stat_t).Uid); info.Mode().Perm() != 0o700 || uid != p.spec.SecurityContext.RunAsUser {
		t.Errorf("the state is in a directory with mode %v of user %d", info.Mode(), uid)
	}
	// The image is read-only, so the manifest must name the volume.
	elsewhere := p.cmd(append(append([]string{}, line...), "--data-dir=/var/lib/drawbridge")...)
	if out, err := elsewhere.CombinedOutput(); err == nil || !strings.Contains(string(out), "read-only file system") {
		t.Errorf("with its state in the image the gateway says %v\n%s", err, out)
	}
	began := time.Now()
	running.stop()
	if grace := time.Duration(p.spec.TerminationGracePeriodSeconds) * time.Second; time.Since(began) > grace {
		t.Errorf("the pod took %v to stop", time.Since(began))
	}
}

// serveMutualTLS serves "hello" to clients with a certificate, and returns the address.
func serveMutualTLS(t testing.TB, leaf *pki.Issued, clients *x509.CertPool) string {
	t.Helper()
	pair, err := tls.X509KeyPair(leaf.ChainPEM, leaf.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
