package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A diagnosis states the facts and the change that would help.
type diagnosis struct {
	facts  string
	advice Suggestion
}

func newDiagnosis(format string, args ...any) diagnosis {
	return diagnosis{facts: fmt.Sprintf(format, args...)}
}

// advise suggests a change that is not in the upstream's fields.
func (d diagnosis) advise(format string, args ...any) diagnosis {
	return d.suggest(about("", format, args...))
}

// suggest suggests a change, instead of any earlier suggestion.
func (d diagnosis) suggest(s Suggestion) diagnosis {
	d.advice = s
	return d
}

// explain explains one trial from its own observations.
func (t *trial) explain() diagnosis {
	if t.target.Via != nil && !t.connected && t.reason != certs.ReasonOther {
		return t.explainProxy()
	}
	switch t.reason {
	case "":
		return t.explainSuccess()
	case certs.ReasonConnectRefused, certs.ReasonConnectTimeout, certs.ReasonUnreachable, certs.ReasonDNSFailure:
		return t.explainDial()
	case certs.ReasonHandshakeTimeout, certs.ReasonPeerClosed:
		return t.explainSilence()
	case certs.ReasonNotTLS:
		return t.explainPlaintext()
	case certs.ReasonSTARTTLSRefused, certs.ReasonSTARTTLSInjection:
		return t.explainStarttls()
	case certs.ReasonUnknownCA:
		return t.explainUnknownCA()
	case certs.ReasonExpired, certs.ReasonNotYetValid:
		return t.explainValidity()
	case certs.ReasonNameMismatch:
		return t.explainName()
	case certs.ReasonDepthExceeded, certs.ReasonWrongKeyUsage, certs.ReasonBadCertificate, certs.ReasonRevoked,
		certs.ReasonCRLExpired, certs.ReasonPinMismatch:
		return t.explainChain()
	case certs.ReasonProtocolVersion, certs.ReasonNoCommonCipher, certs.ReasonNoCommonGroup,
		certs.ReasonUnrecognizedName, certs.ReasonALPNMismatch:
		return t.explainNegotiation()
	case certs.ReasonClientCertificateRequired, certs.ReasonClientCertificateRejected:
		return t.explainClientCertificate()
	case certs.ReasonLocalConfig:
		if e, ok := errors.AsType[*certs.KeyTypeError](t.err); ok {
			return t.explainKeyType(e)
		}
		return newDiagnosis("the settings cannot be used: %s", t.detail()).advise("change the named setting")
	}
	if errors.Is(t.err, context.Canceled) {
		return newDiagnosis("the probe was canceled")
	}
	if t.connected {
		return newDiagnosis("the handshake with %s failed: %s", t.where(), t.detail()).advise("check the upstream's log for this connection")
	}
	return newDiagnosis("connecting to %s failed: %s", t.where(), t.detail())
}

// where returns the endpoint, and the dialed address if it differs.
func (t *trial) where() string {
	at := t.target.Address
	if t.target.Network == "unix" {
		return "unix:" + at
	}
	if t.target.Via != nil {
		return at + ", through the " + t.target.Via.String() + ","
	}
	if t.remote != "" && t.remote != at {
		return at + " (" + t.remote + ")"
	}
	return at
}

// explainProxy is for endpoints to which the egress proxy did not connect.
func (t *trial) explainProxy() diagnosis {
	d := newDiagnosis("no connection to %s: %s", t.target.Address, t.detail())
	switch t.reason {
	case certs.ReasonEgressProxyFailed:
		return d.suggest(about("via", "check the proxy and the network path to it, or correct via"))
	case certs.ReasonEgressProxyRefused:
		return d.suggest(about("via", "correct the credentials in via, or allow %s in the proxy's rules", t.target.Address))
	case certs.ReasonConnectTimeout:
		return d.suggest(about("timeouts.connect", "check that %s is up and that the proxy reaches it, or set timeouts.connect to more than %v", t.target.Address, t.timeouts.connect))
	}
	return d.suggest(about(t.address(), "correct %s, or check that the proxy resolves and reaches it", t.address()))
}

func (t *trial) address() string { return cmp.Or(t.target.AddressField, t.target.Field+".address") }

func (t *trial) explainDial() diagnosis {
	host, _, _ := net.SplitHostPort(t.target.Address)
	switch t.reason {
	case certs.ReasonConnectRefused:
		if t.target.Network == "unix" {
			return newDiagnosis("no process listens on the socket %s: %s", t.target.Address, cause(t.err)).
				suggest(about(t.address(), "start the upstream, or set %s to the socket that it listens on", t.address()))
		}
		return newDiagnosis("nothing listens at %s: it refused the connection", t.where()).
			suggest(about(t.address(), "start the upstream, or set %s to the address that it listens on", t.address()))
	case certs.ReasonConnectTimeout:
		return newDiagnosis("%s did not answer %s", t.where(), t.within(t.timeouts.connect, "timeouts.connect")).
			suggest(about("timeouts.connect", "check for a firewall that drops packets, correct %s, or set timeouts.connect to more than %v", t.address(), t.timeouts.connect))
	case certs.ReasonDNSFailure:
		what := certs.ErrorText(t.err)
		if e, ok := errors.AsType[*net.DNSError](t.err); ok {
			what = escape(e.Err)
			if e.Server != "" {
				what += " (queried " + escape(e.Server) + ")"
			}
		}
		return newDiagnosis("the host name %s does not resolve: %s", quote(host, 260), what).
			suggest(about(t.address(), "correct the host in %s, or this machine's name resolution", t.address()))
	}
	return newDiagnosis("there is no route to %s: %s", t.where(), cause(t.err)).
		suggest(about(t.address(), "correct %s, or this machine's routes", t.address()))
}

// within states how long the trial waited: the time of the setting or, if that
// is longer than a probe, until the end of the probe.
func (t *trial) within(d time.Duration, setting string) string {
	if t.cutShort {
		return fmt.Sprintf("before the end of the probe, whose time limit is below the %v of %s", d, setting)
	}
	return fmt.Sprintf("within %v (%s)", d, setting)
}

// cause returns the error text of the kernel.
func cause(err error) string {
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		return e.Err.Error()
	}
	return certs.ErrorText(err)
}

// explainSilence is for endpoints that ended the handshake without an alert,
// or did not end it.
func (t *trial) explainSilence() diagnosis {
	if t.target.Starttls != starttls.None && t.seen == nil {
		return t.explainStarttls()
	}
	stage := "before it sent anything"
	if t.received > 0 {
		stage = fmt.Sprintf("after %d bytes of the handshake", t.received)
	}
	if t.seen != nil && t.seen.Requested {
		stage += ", having asked for a client certificate"
	}
	if t.reason == certs.ReasonHandshakeTimeout {
		d := newDiagnosis("%s accepted the connection, but did not finish the TLS handshake %s", t.where(), t.within(t.timeouts.handshake, "timeouts.handshake"))
		if t.received == 0 {
			d.facts += " and sent nothing: it may be overloaded, or expect a protocol other than TLS"
			return d.suggest(about("timeouts.handshake", "check that the upstream speaks TLS at %s (if not, set plaintext instead of tls), or set timeouts.handshake to more than %v", t.address(), t.timeouts.handshake))
		}
		d.facts += fmt.Sprintf(", stopping %s", stage)
		return d.suggest(about("timeouts.handshake", "set timeouts.handshake to more than %v if the upstream is only slow", t.timeouts.handshake))
	}
	how := "closed"
	if !errors.Is(t.err, io.EOF) && !errors.Is(t.err, io.ErrUnexpectedEOF) {
		how = "reset"
	}
	d := newDiagnosis("%s %s the connection during the TLS handshake, %s and without an alert", t.where(), how, stage)
	if t.seen != nil && t.seen.Requested && !t.seen.Sent {
		return d.suggest(about("tls.certificate", "set tls.certificate: the upstream requested a client certificate, but we sent none"))
	}
	return d.suggest(about(t.address(), "check that the upstream speaks TLS at %s (if not, set plaintext instead of tls), and check the upstream's log", t.address()))
}

// explainPlaintext quotes the answer of an endpoint that does not speak TLS.
func (t *trial) explainPlaintext() diagnosis {
	protocol := ""
	firstBytes := string(t.firstBytes)
	for _, p := range []struct{ prefix, name string }{
		{"HTTP/", "HTTP"}, {"SSH-", "SSH"}, {"220", "SMTP or FTP"}, {"+OK", "POP3"}, {"* OK", "IMAP"}, {"-ERR", "Redis"}, {"RFB ", "VNC"},
	} {
		if strings.HasPrefix(firstBytes, p.prefix) {
			protocol = p.name
			break
		}
	}
	line, _, _ := strings.Cut(firstBytes, "\n")
	line = strings.TrimRight(line, "\r")
	d := newDiagnosis("%s does not speak TLS: it answered %s", t.where(), quote(line, 120))
	switch protocol {
	case "HTTP":
		d.facts += ", which is HTTP in plaintext"
	case "":
	default:
		d.facts += ", as " + protocol + " does"
	}
	return d.suggest(about(t.address(), "set %s to the port on which the upstream speaks TLS or, if its network is trusted, set plaintext instead of tls", t.address()))
}

// explainStarttls quotes the answer of an endpoint that did not start TLS.
func (t *trial) explainStarttls() diagnosis {
	d := newDiagnosis("%s did not start TLS in %s: %s", t.where(), t.target.Starttls, t.detail())
	if t.reason == certs.ReasonSTARTTLSInjection {
		return d.advise("check the server and the network between it and the gateway: anyone on the path can insert plaintext before the handshake")
	}
	return d.advise("enable TLS at the server, or correct %s; if the server speaks another protocol, correct tls.starttls", t.address())
}

// explainSuccess also states which checks were skipped or ignored.
func (t *trial) explainSuccess() diagnosis {
	if t.target.Client == nil {
		return newDiagnosis("%s accepted the connection; the upstream is plaintext, so no TLS was tried", t.where())
	}
	s := t.seen.State
	first := ""
	if t.target.Starttls != starttls.None {
		first = fmt.Sprintf("agreed in %s to start TLS, and ", t.target.Starttls)
	}
	d := newDiagnosis("%s %scompleted the handshake: %s, %s", t.where(), first, tlsVersion(s.Version), suiteName(s.CipherSuite))
	if s.CurveID != 0 {
		d.facts += ", " + GroupName(s.CurveID)
	}
	leaf := t.leaf()
	switch {
	case t.options.Verification == certs.VerifyInsecureSkip:
		d.facts += "; its certificate was not verified (tls.verification is VERIFICATION_INSECURE_SKIP)"
		return d.suggest(setTo("tls.verification", "VERIFICATION_FULL").and(": without verification, any server that answers at the address can impersonate the upstream"))
	case len(t.seen.Failures) > 0:
		var what []string
		for _, e := range t.seen.Failures {
			what = append(what, e.Detail)
		}
		d.facts += "; VERIFICATION_REPORT_ONLY accepted what VERIFICATION_FULL rejects: " + list(what)
		would := *t
		would.fail(t.seen.Failures[0])
		d.advice = would.explain().advice
		return d
	case leaf != nil:
		d.facts += fmt.Sprintf("; its certificate %s is valid for %s until %s", subject(leaf), list(t.verified()), stamp(leaf.NotAfter))
	}
	return t.doubtClientCertificate(d)
}

// verified returns the verified names.
func (t *trial) verified() []string {
	if t.seen == nil {
		return nil
	}
	var out []string
	for _, n := range t.seen.VerifyNames {
		out = append(out, escape(n))
	}
	return out
}

// learn adds the result of a variation.
func (t *trial) learn(d diagnosis, v *variation) diagnosis {
	switch {
	case v.result.reason == "":
		d.facts += fmt.Sprintf("; with %s the handshake succeeds", v.change)
	case t.reason == "":
		stricter := v.result.explain()
		d.facts += fmt.Sprintf("; %s would reject it: %s", v.change, stricter.facts)
		return d.suggest(stricter.advice.and("; then %s", v.suggestion.Text))
	default:
		d.facts += fmt.Sprintf("; with %s it gets further, to %s", v.change, v.result.reason)
	}
	if v.advice != nil {
		return d.suggest(v.advice(v.result))
	}
	return d.suggest(v.suggestion)
}
