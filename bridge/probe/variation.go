package probe

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// trials builds the variations of a trial's settings.
type trials struct{ *trial }

// verifying tries VERIFICATION_FULL if the settings disable verification.
func (t trials) verifying() []variation {
	if t.options.Verification != certs.VerifyInsecureSkip {
		return nil
	}
	return []variation{{
		change:     "tls.verification: VERIFICATION_FULL",
		apply:      func(o *certs.ClientOptions) { o.Verification = certs.VerifyFull },
		suggestion: setTo("tls.verification", "VERIFICATION_FULL"),
	}}
}

// classic are the groups without the post-quantum ones. A post-quantum key
// share makes the ClientHello longer than one packet, and some endpoints and
// middleboxes read only the first packet.
var classic = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}

func isClassic(id tls.CurveID) bool { return slices.Contains(classic, id) }

func (t trials) classicGroups() []variation {
	groups := classic
	if offered := t.options.Groups; len(offered) > 0 {
		groups = slices.DeleteFunc(slices.Clone(offered), func(id tls.CurveID) bool { return !isClassic(id) })
		if len(groups) == len(offered) || len(groups) == 0 {
			return nil
		}
	}
	return []variation{{
		change: "tls.groups: " + strings.Join(groupNames(groups), ", "),
		apply:  func(o *certs.ClientOptions) { o.Groups = groups },
		suggestion: setToList("tls.groups", groupNames(groups)...).
			and(": the upstream, or a device on the path, cannot handle the post-quantum groups"),
	}}
}

func (t trials) moreGroups() []variation {
	offered := t.options.Groups
	if len(offered) == 0 {
		return nil
	}
	return []variation{{
		change:     "tls.groups: the default",
		apply:      func(o *certs.ClientOptions) { o.Groups = nil },
		suggestion: remove("tls.groups"),
		refine: func(r *trial) (variation, bool) {
			if r.seen == nil || r.seen.State.CurveID == 0 {
				return variation{}, false
			}
			groups := append(slices.Clone(offered), r.seen.State.CurveID)
			// Until TLS 1.2 the groups also limit the server's certificates.
			if curve := curveOf(r.leaf()); r.seen.State.Version < tls.VersionTLS13 && curve != 0 && !slices.Contains(groups, curve) {
				groups = append(groups, curve)
			}
			return variation{
				change:     "tls.groups: " + strings.Join(groupNames(groups), ", "),
				apply:      func(o *certs.ClientOptions) { o.Groups = groups },
				suggestion: setToList("tls.groups", groupNames(groups)...),
			}, true
		},
	}}
}

// curveOf returns the curve of a certificate's ECDSA key, or 0.
func curveOf(leaf *x509.Certificate) tls.CurveID {
	if leaf == nil {
		return 0
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return 0
	}
	switch key.Curve {
	case elliptic.P256():
		return tls.CurveP256
	case elliptic.P384():
		return tls.CurveP384
	case elliptic.P521():
		return tls.CurveP521
	}
	return 0
}

func (t trials) moreSuites() []variation {
	lowest, _ := versions(t.options)
	if lowest >= tls.VersionTLS13 {
		return nil // TLS 1.3 suites cannot be selected
	}
	offered := t.options.CipherSuites
	advice := func(r *trial) Suggestion {
		if r.seen == nil || r.seen.State.CipherSuite == 0 {
			return remove("tls.cipher_suites").and(", or add a suite that the upstream supports")
		}
		chosen := r.seen.State.CipherSuite
		if len(offered) == 0 && !isWeak(chosen) {
			return remove("tls.cipher_suites")
		}
		s := about("tls.cipher_suites", "add %s to tls.cipher_suites", values(suiteName(chosen)))
		if len(offered) > 0 {
			s.Value = values(suiteNames(append(slices.Clone(offered), chosen))...)
		}
		if isWeak(chosen) {
			return s.and(", although it is weak: better enable another suite at the upstream")
		}
		return s
	}
	var out []variation
	if len(offered) > 0 {
		out = append(out, variation{change: "tls.cipher_suites: the default", apply: func(o *certs.ClientOptions) { o.CipherSuites = nil }, advice: advice})
	}
	return append(out, variation{change: "tls.cipher_suites: every suite, weak ones too", apply: func(o *certs.ClientOptions) { o.CipherSuites = everySuite() }, advice: advice})
}

func isWeak(id uint16) bool {
	return slices.ContainsFunc(tls.InsecureCipherSuites(), func(s *tls.CipherSuite) bool { return s.ID == id })
}

// lowerVersion tries TLS 1.2, for endpoints that fail on a TLS 1.3
// ClientHello.
func (t trials) lowerVersion() []variation {
	lowest, highest := versions(t.options)
	if highest <= tls.VersionTLS12 || lowest > tls.VersionTLS12 {
		return nil
	}
	return []variation{setMax(tls.VersionTLS12)}
}

func setMax(v uint16) variation {
	return variation{
		change:     "tls.max_version: " + versionValue(v),
		apply:      func(o *certs.ClientOptions) { o.MaxVersion = v },
		suggestion: setTo("tls.max_version", versionValue(v)),
	}
}

func setMin(v uint16) variation {
	return variation{
		change: "tls.min_version: " + versionValue(v),
		apply:  func(o *certs.ClientOptions) { o.MinVersion = v },
		advice: func(r *trial) Suggestion {
			v := v
			if r.seen != nil && r.seen.State.HandshakeComplete {
				v = r.seen.State.Version
			}
			s := setTo("tls.min_version", versionValue(v))
			if v < tls.VersionTLS12 {
				return s.and(", although RFC 8996 deprecates it: better enable TLS 1.2 or 1.3 at the upstream")
			}
			return s
		},
	}
}

func (t trials) otherVersions() []variation {
	lowest, highest := versions(t.options)
	var out []variation
	if highest < tls.VersionTLS13 {
		out = append(out, setMax(tls.VersionTLS13))
	}
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS10} {
		if v < lowest {
			out = append(out, setMin(v))
		}
	}
	return out
}

// otherName tries SNI if none was sent, and no SNI otherwise.
func (t trials) otherName() []variation {
	var out []variation
	sent := t.sni()
	wanted := ""
	for _, n := range []string{t.options.VerifyName, t.options.ServerName, t.target.Host} {
		if wanted == "" && isDNSName(n) {
			wanted = n
		}
	}
	if wanted != "" && wanted != sent {
		v := variation{
			change:     "tls.server_name: " + wanted,
			apply:      func(o *certs.ClientOptions) { o.NoServerName, o.FromHost, o.ServerName = false, false, wanted },
			suggestion: setToString("tls.server_name", wanted),
		}
		if t.options.NoServerName {
			v.suggestion = setTo("tls.server_name_source", "SERVER_NAME_SOURCE_FIXED").and(" and tls.server_name to %q", wanted)
		}
		out = append(out, v)
	}
	if sent != "" {
		verify := t.verifyName()
		out = append(out, variation{
			change: "tls.server_name_source: SERVER_NAME_SOURCE_NONE",
			apply: func(o *certs.ClientOptions) {
				o.NoServerName, o.FromHost = true, false
				if o.VerifyName == "" {
					o.VerifyName = verify
				}
			},
			suggestion: setTo("tls.server_name_source", "SERVER_NAME_SOURCE_NONE"),
			refine: func(r *trial) (variation, bool) {
				leaf := r.leaf()
				if leaf == nil || t.reason != certs.ReasonUnrecognizedName {
					return variation{}, false
				}
				names := sans(leaf)
				if len(names) == 0 || !isDNSName(names[0]) {
					return variation{}, false
				}
				return variation{
					change:     "tls.server_name: " + names[0],
					apply:      func(o *certs.ClientOptions) { o.FromHost, o.ServerName = false, names[0] },
					suggestion: setToString("tls.server_name", names[0]).and(", the name in its certificate for clients without SNI"),
				}, true
			},
		})
	}
	return out
}

// verifyName returns the verified name, or "" without one, or if names are
// given by kind.
func (t *trial) verifyName() string {
	if t.seen == nil || len(t.seen.VerifyNames) != 1 || len(t.options.SubjectAltNames) > 0 {
		return ""
	}
	return t.seen.VerifyNames[0]
}

// otherProtocols tries other ALPN protocols, and no ALPN.
func (t trials) otherProtocols() []variation {
	offered := t.options.NextProtos
	if len(offered) == 0 {
		return nil
	}
	var out []variation
	for _, p := range []string{"http/1.1", "h2"} {
		if t.reason == certs.ReasonALPNMismatch && !slices.Contains(offered, p) {
			v := variation{
				change:     "tls.alpn: " + p,
				apply:      func(o *certs.ClientOptions) { o.NextProtos = []string{p} },
				suggestion: setToList("tls.alpn", p),
			}
			if t.options.RequireALPN && p == "http/1.1" {
				v.suggestion = setTo("http.protocol", "HTTP_PROTOCOL_1_1").and(", and remove tls.alpn")
			}
			out = append(out, v)
		}
	}
	return append(out, variation{
		change:     "tls.alpn: none",
		apply:      func(o *certs.ClientOptions) { o.NextProtos, o.RequireALPN = nil, false },
		suggestion: about("tls.alpn", "set tls.alpn to a protocol that the upstream supports: it accepts connections without ALPN"),
	})
}
