// Package fleet holds the flags that make a gateway a member of a fleet.
package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/pflag"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/gateway"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
)

// Flags are the flags of serve about the store and the fleet.
type Flags struct {
	store         string
	endpoints     []string
	prefix        string
	ca, cert, key string
	id            string
	labels        map[string]string
}

// Add adds the flags.
func (f *Flags) Add(flags *pflag.FlagSet) {
	flags.StringVar(&f.store, "store", "bolt", "where the configuration is stored: bolt, in the data directory; or etcd, shared by a fleet of gateways, with a copy in the data directory")
	f.AddEtcd(flags)
	flags.StringVar(&f.id, "gateway-id", "", "`name` of this gateway in the fleet, which no other gateway may have (default: the host name)")
	flags.StringToStringVar(&f.labels, "gateway-labels", nil, "`labels` that describe this gateway in the fleet, such as zone=a,tier=edge")
}

// AddEtcd adds only the flags about etcd, for commands that use EtcdOptions.
func (f *Flags) AddEtcd(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.endpoints, "etcd-endpoints", nil, "`addresses` of the etcd members, as https://HOST:PORT, comma separated; http:// only on loopback")
	flags.StringVar(&f.prefix, "etcd-prefix", "/drawbridge", "`prefix` of the fleet's keys in etcd; fleets with different prefixes are separate")
	flags.StringVar(&f.ca, "etcd-ca", "", "PEM `file` of the CAs that the certificates of etcd must chain to (default: the system's)")
	flags.StringVar(&f.cert, "etcd-cert", "", "PEM `file` of the client certificate to present to etcd; it is read again for each connection")
	flags.StringVar(&f.key, "etcd-key", "", "PEM `file` of its private key")
}

// Options checks the flags. It returns nil for a gateway without a fleet. config is the
// value of --config, sealed says whether there is a seal key, and history is the value of
// --revision-history.
func (f *Flags) Options(config string, sealed bool, history int) (*gateway.Fleet, error) {
	switch f.store {
	case "bolt":
		if len(f.endpoints)+len(f.labels) > 0 || f.ca+f.cert+f.key+f.id != "" {
			return nil, exit.UsageError("--etcd-endpoints, --etcd-ca, --etcd-cert, --etcd-key, --gateway-id and --gateway-labels require --store etcd")
		}
		return nil, nil
	case "etcd":
	default:
		return nil, exit.UsageError(fmt.Sprintf("--store %q: must be bolt or etcd", f.store))
	}
	switch {
	case len(f.endpoints) == 0:
		return nil, exit.UsageError("--store etcd needs --etcd-endpoints")
	case !sealed:
		return nil, exit.UsageError("--store etcd needs --seal-key-file, with the same key on every gateway: etcd must never hold private keys in the clear")
	case config != "":
		return nil, exit.UsageError("--config cannot be combined with --store etcd: each gateway would replace the configuration of the whole fleet. Run \"drawbridge apply\" once instead")
	case history > etcd.MaxHistory:
		return nil, exit.UsageError(fmt.Sprintf("--revision-history %d: with --store etcd it must be from 1 to %d", history, etcd.MaxHistory))
	}
	if err := f.checkIdentity(); err != nil {
		return nil, err
	}
	at, err := f.EtcdOptions()
	if err != nil {
		return nil, err
	}
	return &gateway.Fleet{ID: f.id, Labels: f.labels, Etcd: at}, nil
}

// EtcdOptions checks the flags about etcd.
func (f *Flags) EtcdOptions() (out etcd.Options, err error) {
	switch {
	case len(f.endpoints) == 0:
		return out, exit.UsageError("--etcd-endpoints is missing")
	case !strings.HasPrefix(f.prefix, "/") || strings.Trim(f.prefix, "/") == "":
		return out, exit.UsageError(fmt.Sprintf("--etcd-prefix %q: must begin with / and name at least one part, such as /drawbridge", f.prefix))
	}
	// The working directory may change before the files are read again.
	for _, path := range []*string{&f.ca, &f.cert, &f.key} {
		if abs, err := filepath.Abs(*path); *path != "" && err == nil {
			*path = abs
		}
	}
	encrypted, err := f.encrypted()
	if err != nil {
		return out, err
	}
	out = etcd.Options{Endpoints: f.endpoints, Prefix: f.prefix}
	if encrypted {
		out.TLS, err = f.tls()
	}
	return out, err
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// checkIdentity checks the ID and the labels of the gateway.
func (f *Flags) checkIdentity() error {
	if f.id != "" && !idPattern.MatchString(f.id) {
		return exit.UsageError(fmt.Sprintf("--gateway-id %q: must be 1 to 128 letters, digits, dots, - and _", f.id))
	}
	if len(f.labels) > store.MaxLabels {
		return exit.UsageError(fmt.Sprintf("--gateway-labels: has %d labels; at most %d are allowed", len(f.labels), store.MaxLabels))
	}
	for key, value := range f.labels {
		if key == "" || len(key) > store.MaxLabelBytes || len(value) > store.MaxLabelBytes {
			return exit.UsageError(fmt.Sprintf("--gateway-labels: each key and value must have at most %d bytes, and keys at least 1", store.MaxLabelBytes))
		}
	}
	return nil
}

// encrypted checks the endpoints, and reports whether they use TLS.
func (f *Flags) encrypted() (bool, error) {
	plain := 0
	for i, e := range f.endpoints {
		u, err := url.Parse(strings.TrimSpace(e))
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
			return false, exit.UsageError(fmt.Sprintf("--etcd-endpoints %q: must be https://HOST:PORT", e))
		}
		if u.Scheme == "http" {
			plain++
			if !loopback(u.Hostname()) {
				return false, exit.UsageError(fmt.Sprintf("--etcd-endpoints %q: plaintext is allowed only on loopback: use https, with --etcd-ca, --etcd-cert and --etcd-key", e))
			}
		}
		f.endpoints[i] = u.Scheme + "://" + u.Host
	}
	if plain > 0 && plain < len(f.endpoints) {
		return false, exit.UsageError("--etcd-endpoints: all must be https, or all http")
	}
	if plain > 0 && f.ca+f.cert+f.key != "" {
		return false, exit.UsageError("--etcd-ca, --etcd-cert and --etcd-key need endpoints with https")
	}
	return plain == 0, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// tls returns the settings for connections to etcd.
func (f *Flags) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if (f.cert == "") != (f.key == "") {
		return nil, exit.UsageError("--etcd-cert and --etcd-key must be set together")
	}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("--etcd-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--etcd-ca: %s holds no PEM certificate", f.ca)
		}
	}
	if f.cert == "" {
		return config, nil
	}
	load := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("--etcd-cert: %w", err)
		}
		return &c, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	// Read the files again for each connection, so that a rotated certificate is used.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return config, nil
}

// Files returns the files that the gateway reads while it runs.
func (f *Flags) Files() []string { return []string{f.ca, f.cert, f.key} }
