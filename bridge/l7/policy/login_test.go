package policy

import "testing"

func TestSchemesThatAuthenticateTheConnection(t *testing.T) {
	for value, want := range map[string]bool{
		"NTLM": true, "ntlm": true, "NTLM TlRMTVNTUAAB": true, "Ntlm\tTlRM": true, "Negotiate": true, "NEGOTIATE YII=": true, "Nego2 x": true, "Kerberos x": true,
		`Basic realm="x", NTLM`: true, `Negotiate, Basic realm="x"`: true, `Digest nonce="a,b", qop="auth",negotiate`: true, ",,NTLM": true,
		`Basic realm="a, NTLM"`: false, `Basic realm="a, NTLM "`: true, // a false positive
		"": false, "Basic": false, "Bearer NTLM": false, "NTLMv3 x": false, "NTL": false, "Neg": false, `Basic realm="NTLM"`: false, "XNTLM": false,
	} {
		for _, name := range []string{"WWW-Authenticate", "www-authenticate", "Proxy-Authenticate"} {
			if f := fields("X: NTLM", name+": Basic", name+": "+value); AsksLogin(f) != want {
				t.Errorf("%s: %s: %v", name, value, !want)
			}
		}
		for _, name := range []string{"Authorization", "authorization", "Proxy-Authorization"} {
			if f := fields("X: NTLM", name+": Basic", name+": "+value); SendsLogin(f) != want {
				t.Errorf("%s: %s: %v", name, value, !want)
			}
		}
	}
	if f := fields("Authorization: NTLM"); AsksLogin(f) {
		t.Error("credentials are mistaken for a challenge")
	}
	if f := fields("WWW-Authenticate: NTLM"); SendsLogin(f) {
		t.Error("a challenge is taken for credentials")
	}
}
