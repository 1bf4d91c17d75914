package certs_test

import (
	"crypto/tls"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// secure lists the suites that Go considers secure, in OpenSSL's order.
var secure = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
}

func TestParseCipherSuites(t *testing.T) {
	gcm := []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	}
	rsa := []uint16{
		tls.TLS_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	}
	for _, c := range []struct {
		list string // the entries, separated by |
		want []uint16
		warn []string // a part of each warning
	}{
		{"", nil, nil},
		{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", gcm[3:], nil},
		{"ECDHE-RSA-AES128-GCM-SHA256", gcm[3:], nil},
		{"ECDHE-RSA-AES128-GCM-SHA256|TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", gcm[3:], nil},
		{"ecdhe-rsa-aes128-gcm-sha256", gcm[3:], nil},
		{"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", []uint16{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256}, nil},
		{"HIGH:!aNULL:!MD5", secure, []string{`"HIGH:!aNULL:!MD5" expands to TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, `}},
		{"HIGH|!aNULL|!MD5", secure, []string{"expands to"}},
		{"DEFAULT", secure, []string{"expands to"}},
		{"ALL:!EXPORT:!LOW:!SSLv2", secure, []string{"expands to"}},
		{"ECDHE+AESGCM", gcm, []string{"expands to"}},
		{"EECDH+AESGCM:EDH+AESGCM", gcm, []string{"expands to", "EDH"}},
		{"ECDHE+AESGCM:@SECLEVEL=2", gcm, []string{"expands to", "no effect: @SECLEVEL=2"}},
		{"HIGH:-AESGCM:AESGCM", append(slices.DeleteFunc(slices.Clone(secure), func(id uint16) bool { return slices.Contains(gcm, id) }), gcm...), []string{"expands to"}},
		{"HIGH:!AESGCM:AESGCM", slices.DeleteFunc(slices.Clone(secure), func(id uint16) bool { return slices.Contains(gcm, id) }), []string{"expands to"}},
		{"ECDHE+AESGCM:+AES256", []uint16{gcm[2], gcm[3], gcm[0], gcm[1]}, []string{"expands to"}},
		{"ECDHE+AES128+AESGCM:ECDHE+AES256+AESGCM:@STRENGTH", []uint16{gcm[0], gcm[1], gcm[2], gcm[3]}, []string{"expands to"}},
		{"HIGH:!SHA1:!aECDSA:!CHACHA20", []uint16{gcm[1], gcm[3]}, []string{"expands to"}},
		{"HIGH !SHA,!kEECDH+aRSA;!CHACHA20", []uint16{gcm[0], gcm[2]}, []string{"expands to"}},
		{"AES128-SHA", rsa[4:], []string{"known weaknesses: TLS_RSA_WITH_AES_128_CBC_SHA"}},
		{"kRSA", rsa, []string{"expands to", "known weaknesses"}},
		{"RSA+AESGCM", rsa[:2], []string{"expands to", "known weaknesses"}},
		{"RC4+ECDHE+aRSA", []uint16{tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA}, []string{"expands to", "known weaknesses"}},
		{"kRSA+3DES", []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}, []string{"expands to", "known weaknesses"}},
		{"3DES", []uint16{tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA}, []string{"expands to", "known weaknesses"}},
		{"DHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384", gcm[1:2], []string{"dropped, because they are not supported: DHE-RSA-AES256-GCM-SHA384"}},
		{"TLS_AES_128_GCM_SHA256|ECDHE-RSA-AES256-GCM-SHA384", gcm[1:2], []string{"TLS 1.3 suites are always enabled"}},
		{"HIGH:!TLSv1.3:!CAMELLIA:!DHE-RSA-AES128-SHA", secure, []string{"expands to", "TLS 1.3 suites are always enabled"}},
		{"TLSv1.2+ECDHE:!SHA256:!CHACHA20", gcm, []string{"expands to"}},
	} {
		t.Run(c.list, func(t *testing.T) {
			var entries []string
			if c.list != "" {
				entries = strings.Split(c.list, "|")
			}
			ids, warnings, err := certs.ParseCipherSuites(entries)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(ids, c.want) {
				t.Errorf("became %s", suiteNames(ids))
			}
			if len(warnings) != len(c.warn) {
				t.Fatalf("warnings %q", warnings)
			}
			for i, w := range c.warn {
				if !strings.Contains(warnings[i], w) {
					t.Errorf("warning %q does not say %q", warnings[i], w)
				}
			}
		})
	}
}

func suiteNames(ids []uint16) string {
	var names []string
	for _, id := range ids {
		names = append(names, tls.CipherSuiteName(id))
	}
	return strings.Join(names, " ")
}

func TestParseCipherSuitesRefuses(t *testing.T) {
	for _, c := range []struct {
		list, field, say string
	}{
		{"ECDHE-RSA-AES128-GCM-SHA265", "[0]", `did you mean "ECDHE-RSA-AES128-GCM-SHA256"?`},
		{"HIGH|!aNUL", "[1]", `did you mean "aNULL"?`},
		{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA", "[0]", "did you mean"},
		{"everything", "[0]", "want an IANA or OpenSSL name"},
		{"HIGH:SSLv3.1", "[0]", "an insecure protocol version"},
		{"HIGH||ALL", "[1]", "is empty"},
		{"HIGH:@WEAKNESS", "[0]", "want @STRENGTH"},
		{"HIGH:!", "[0]", "is not a cipher suite"},
		{"HIGH+", "[0]", "is not a cipher suite"},
		{"ALL:!ALL", "", "leaves no cipher suite"},
		{"aNULL:eNULL", "", "not supported: aNULL, eNULL"},
		{"MEDIUM", "", "known weaknesses, each of which must be named"},
		{"LOW:EXP", "", "not supported"},
		{"TLS_AES_128_GCM_SHA256|TLS_CHACHA20_POLY1305_SHA256", "", "set min_version to TLS 1.3"},
		{"\x1b[31m\n", "[0]", `\x1b`},
		{strings.Repeat("HIGH:", 3000), "[0]", "longer than"},
		{"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n+AgEG\n-----END PRIVATE KEY-----\n", "[0]", "several lines"},
		{"MIGHAgEAMBMGByqGSM49\n+AgEG\n", "[0]", "several lines"},
	} {
		t.Run(c.list[:min(len(c.list), 30)], func(t *testing.T) {
			ids, _, err := certs.ParseCipherSuites(strings.Split(c.list, "|"))
			if ids != nil {
				t.Errorf("became %s", suiteNames(ids))
			}
			if f := wantFault(t, err, c.field); !strings.Contains(f.Problem, c.say) {
				t.Errorf("problem %q does not say %q", f.Problem, c.say)
			}
			checkText(t, err.Error())
			if strings.Contains(err.Error(), "MIGH") {
				t.Errorf("%q holds a key", err)
			}
		})
	}
	t.Run("every fault at once", func(t *testing.T) {
		_, _, err := certs.ParseCipherSuites([]string{"x1", "HIGH", "x2"})
		wantFault(t, err, "[0]")
		wantFault(t, err, "[2]")
	})
}

// Every suite of crypto/tls is known under both names, and the local OpenSSL
// agrees on the properties.
func TestCipherSuiteNamesAgreeWithOpenSSL(t *testing.T) {
	all := append(tls.CipherSuites(), tls.InsecureCipherSuites()...)
	for _, s := range all {
		ids, _, err := certs.ParseCipherSuites([]string{s.Name})
		if slices.Contains(s.SupportedVersions, tls.VersionTLS13) {
			wantFault(t, err, "")
		} else if err != nil || len(ids) != 1 || ids[0] != s.ID {
			t.Errorf("%s became %s: %v", s.Name, suiteNames(ids), err)
		}
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	list := func(cipherString string) map[string]string { // maps IANA names to OpenSSL names
		out, err := exec.Command(openssl, "ciphers", "-stdname", "-tls1_2", cipherString+":@SECLEVEL=0").Output()
		if err != nil {
			t.Fatal(err)
		}
		names := make(map[string]string)
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) > 2 {
				names[f[0]] = f[2]
			}
		}
		return names
	}
	for iana, name := range list("ALL:COMPLEMENTOFALL") {
		a, _, errA := certs.ParseCipherSuites([]string{iana, "HIGH"})
		b, _, errB := certs.ParseCipherSuites([]string{name, "HIGH"})
		if errA != nil || errB != nil || !slices.Equal(a, b) {
			t.Errorf("%s and %s: %v %v", iana, name, errA, errB)
		}
	}
	for _, s := range []string{
		"HIGH:!aNULL:!MD5", "ECDHE+AESGCM", "EECDH+AES128", "HIGH:!kRSA", "ECDHE:!SHA1:!SHA256:!SHA384", "ALL:!aRSA", "AES256", "CHACHA20",
		"ECDHE-RSA-AES128-GCM-SHA256:ECDHE:!AES256", "SHA256+ECDHE", "AES:!AESGCM", "TLSv1.2:!AESGCM", "HIGH:-ECDHE:ECDHE+aECDSA",
	} {
		want := list(s)
		ids, _, err := certs.ParseCipherSuites([]string{s})
		if err != nil && s != "SHA256+ECDHE" { // all suites of SHA256+ECDHE are weak
			t.Errorf("%s: %v", s, err)
		}
		for _, suite := range all {
			if slices.Contains(ids, suite.ID) && want[suite.Name] == "" {
				t.Errorf("%s has %s here, not with OpenSSL", s, suite.Name)
			}
			if !suite.Insecure && want[suite.Name] != "" && !strings.HasPrefix(suite.Name, "TLS_AES") && !strings.HasPrefix(suite.Name, "TLS_CHACHA") && !slices.Contains(ids, suite.ID) {
				t.Errorf("%s has %s with OpenSSL, not here", s, suite.Name)
			}
		}
	}
}

func TestCipherSuitesAreNegotiated(t *testing.T) {
	ids, _, err := certs.ParseCipherSuites([]string{"ECDHE-ECDSA-AES128-SHA"})
	if err != nil {
		t.Fatal(err)
	}
	server, o := mutual(t, certstest.NewCA(t))
	o.CipherSuites, o.MaxVersion = ids, tls.VersionTLS12
	state, err := connect(t, newClient(t, o), serveConfig(t, server).addr)
	if err != nil || state.CipherSuite != ids[0] {
		t.Errorf("negotiated %s: %v", tls.CipherSuiteName(state.CipherSuite), err)
	}
}

func TestParseGroups(t *testing.T) {
	ids, err := certs.ParseGroups([]string{"P-256", "x25519", "prime256v1", "X25519MLKEM768"})
	if err != nil || !slices.Equal(ids, []tls.CurveID{tls.CurveP256, tls.X25519, tls.X25519MLKEM768}) {
		t.Errorf("became %v: %v", ids, err)
	}
	if ids, err := certs.ParseGroups(nil); ids != nil || err != nil {
		t.Errorf("nothing became %v: %v", ids, err)
	}
	_, err = certs.ParseGroups([]string{"X25519", "", "secp256k1", "\x1b"})
	for _, field := range []string{"[1]", "[2]", "[3]"} {
		if f := wantFault(t, err, field); !strings.Contains(f.Problem, "want one of X25519MLKEM768") {
			t.Errorf("problem %q", f.Problem)
		}
	}
	checkText(t, err.Error())

	server, o := mutual(t, certstest.NewCA(t))
	o.Groups = []tls.CurveID{tls.CurveP384}
	state, err := connect(t, newClient(t, o), serveConfig(t, server).addr)
	if err != nil || state.CurveID != tls.CurveP384 {
		t.Errorf("negotiated %v: %v", state.CurveID, err)
	}
}
