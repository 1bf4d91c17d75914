package fleet

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func parse(t *testing.T, args string) *Flags {
	t.Helper()
	f := &Flags{}
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	f.Add(flags)
	if err := flags.Parse(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFleetFlagsAreChecked(t *testing.T) {
	for _, tt := range []struct {
		args, config string
		unsealed     bool
		history      int
		want         string
	}{
		{args: "--store sqlite", want: "must be bolt or etcd"},
		{args: "--etcd-endpoints https://e:2379", want: "require --store etcd"},
		{args: "--gateway-id a", want: "require --store etcd"},
		{args: "--gateway-labels zone=a", want: "require --store etcd"},
		{args: "--store etcd --etcd-endpoints https://e:2379 --gateway-id a/b", want: "must be 1 to 128 letters"},
		{args: "--store etcd --etcd-endpoints https://e:2379 --gateway-labels =a", want: "keys at least 1"},
		{args: "--etcd-ca ca.pem", want: "require --store etcd"},
		{args: "--store etcd", want: "needs --etcd-endpoints"},
		{args: "--store etcd --etcd-endpoints https://e:2379", unsealed: true, want: "needs --seal-key-file"},
		{args: "--store etcd --etcd-endpoints https://e:2379", config: "c.yaml", want: "--config cannot be combined with --store etcd"},
		{args: "--store etcd --etcd-endpoints https://e:2379", history: 1001, want: "it must be from 1 to 1000"},
		{args: "--store etcd --etcd-endpoints https://e:2379 --etcd-prefix fleet", want: "must begin with /"},
		{args: "--store etcd --etcd-endpoints https://e:2379 --etcd-prefix //", want: "must begin with /"},
		{args: "--store etcd --etcd-endpoints e:2379", want: "must be https://HOST:PORT"},
		{args: "--store etcd --etcd-endpoints https://e", want: "must be https://HOST:PORT"},
		{args: "--store etcd --etcd-endpoints https://e:2379/path", want: "must be https://HOST:PORT"},
		{args: "--store etcd --etcd-endpoints http://10.0.0.1:2379", want: "plaintext is allowed only on loopback"},
		{args: "--store etcd --etcd-endpoints http://127.0.0.1:2379,https://e:2379", want: "all must be https, or all http"},
		{args: "--store etcd --etcd-endpoints http://127.0.0.1:2379 --etcd-ca ca.pem", want: "need endpoints with https"},
		{args: "--store etcd --etcd-endpoints https://e:2379 --etcd-cert c.pem", want: "must be set together"},
		{args: "--store etcd --etcd-endpoints https://e:2379 --etcd-ca /nowhere", want: "no such file"},
	} {
		o, err := parse(t, tt.args).Options(tt.config, !tt.unsealed, tt.history)
		if o != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
		}
	}
	if o, err := parse(t, "").Options("c.yaml", false, 10_000); o != nil || err != nil {
		t.Errorf("without a fleet: %v, %v", o, err)
	}
	o, err := parse(t, "--store etcd --etcd-endpoints http://127.0.0.1:1,http://[::1]:2/").Options("", true, 100)
	if err != nil || o.Etcd.TLS != nil || strings.Join(o.Etcd.Endpoints, " ") != "http://127.0.0.1:1 http://[::1]:2" || o.Etcd.Prefix != "/drawbridge" {
		t.Errorf("%+v, %v", o, err)
	}
}

// The next connection to etcd uses a rotated client certificate.
func TestClientCertificateIsReloaded(t *testing.T) {
	ca, dir := certstest.NewCA(t), t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rotate := func(name string) {
		c := ca.Client(t, name)
		write("c.pem", c.ChainPEM)
		write("k.pem", c.KeyPEM)
	}
	write("ca.pem", ca.TrustPEM())
	rotate("one")
	f := parse(t, "--store etcd --etcd-endpoints https://e:2379 --etcd-ca ca.pem --etcd-cert c.pem --etcd-key k.pem")
	t.Chdir(dir)
	o, err := f.Options("", true, 100)
	if err != nil {
		t.Fatal(err)
	}
	presented := func() string {
		c, err := o.Etcd.TLS.GetClientCertificate(&tls.CertificateRequestInfo{})
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.Subject.CommonName
	}
	t.Chdir("/")
	if got := presented(); got != "one" || o.Etcd.TLS.RootCAs == nil {
		t.Errorf("presented %q", got)
	}
	rotate("two")
	if got := presented(); got != "two" {
		t.Errorf("presented %q after the rotation", got)
	}
}
