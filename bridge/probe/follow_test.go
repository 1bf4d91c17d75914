package probe_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/probe"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// followed checks that a suggestion for a failed probe changes the outcome: it makes the
// change and probes again. Suggestions that only a person can follow are skipped.
func followed(t *testing.T, target probe.Target, failed *probe.Result) {
	t.Helper()
	if failed.OK() || target.Client == nil {
		return
	}
	s := failed.Suggestion
	changed, ok := follow(t, target, s)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if again := probe.Run(ctx, changed); !again.OK() && again.Reason == failed.Reason {
		t.Errorf("after the change of %q the reason is still %s: %s", s.Text, again.Reason, again.Explanation)
	}
}

// follow returns the target with the change that a suggestion describes. It reports false
// if the suggestion is not about a setting, or has no value.
func follow(t *testing.T, target probe.Target, s probe.Suggestion) (probe.Target, bool) {
	t.Helper()
	o := target.Client.Options()
	list := func() (elements []string) {
		if err := json.Unmarshal([]byte(s.Value), &elements); err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		return elements
	}
	version := func() uint16 {
		for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
			if "TLS_VERSION_"+strings.ReplaceAll(strings.TrimPrefix(tls.VersionName(v), "TLS "), ".", "_") == s.Value {
				return v
			}
		}
		t.Fatalf("%+v: no such version", s)
		return 0
	}
	if s.Value == "" && !strings.HasPrefix(s.Text, "remove "+s.Field) {
		return target, false
	}
	switch s.Field {
	case "tls.verify_name":
		o.VerifyName = s.Value
	case "tls.server_name":
		o.ServerName, o.NoServerName = s.Value, false
	case "tls.server_name_source":
		o.FromHost, o.NoServerName = false, s.Value == "SERVER_NAME_SOURCE_NONE"
		if _, name, ok := strings.Cut(s.Text, "tls.server_name to "); ok {
			name, err := strconv.Unquote(name)
			if err != nil {
				t.Fatalf("%+v: %v", s, err)
			}
			o.ServerName = name
		}
	case "tls.subject_alt_names":
		var err error
		if o.SubjectAltNames, err = certs.ParseSANs(list()); err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
	case "tls.trust_bundles":
		o.Trust = nil
		for _, name := range list() {
			i := slices.IndexFunc(target.Known, func(b probe.Bundle) bool { return b.Name == name })
			o.Trust = append(o.Trust, target.Known[i].Trust)
		}
	case "tls.certificate":
		i := slices.IndexFunc(target.Certificates, func(c probe.Certificate) bool { return c.Name == s.Value })
		o.Certificate = target.Certificates[i].Cert
	case "tls.verify_depth":
		n, err := strconv.ParseUint(s.Value, 10, 32)
		if err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		depth := uint32(n)
		o.VerifyDepth = &depth
	case "tls.groups":
		o.Groups = nil
		if s.Value != "" {
			var err error
			if o.Groups, err = certs.ParseGroups(list()); err != nil {
				t.Fatalf("%+v: %v", s, err)
			}
		}
	case "tls.cipher_suites":
		o.CipherSuites = nil
	case "tls.min_version":
		o.MinVersion = version()
	case "tls.max_version":
		o.MaxVersion, o.MinVersion = version(), min(o.MinVersion, version())
	case "tls.alpn":
		o.NextProtos = list()
	case "http.protocol":
		o.NextProtos, o.RequireALPN = []string{"http/1.1"}, false
	case "tls.renegotiation":
		o.RenegotiateOnce = true
	default:
		return target, false
	}
	target.Client = client(t, o)
	return target, true
}
