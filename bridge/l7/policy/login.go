package policy

import (
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// SendsLogin reports whether a request logs in with a scheme that authenticates
// its connection instead of the request alone: NTLM, Negotiate or Kerberos. Every
// later request on that connection is then served as the same user.
func SendsLogin(f message.Fields) bool {
	return usesConnectionScheme(f, "Authorization", "Proxy-Authorization")
}

// AsksLogin reports whether a response asks for such a login.
func AsksLogin(f message.Fields) bool {
	return usesConnectionScheme(f, "WWW-Authenticate", "Proxy-Authenticate")
}

// usesConnectionScheme reports whether either field has such a scheme, alone or
// among others. A comma in a quoted string counts as a separator, so it may report
// a scheme that the field does not have, but never misses one.
func usesConnectionScheme(f message.Fields, a, b string) bool {
	for i := range f {
		name := f[i].Name
		if len(name) != len(a) && len(name) != len(b) || !message.EqualFold(name, a) && !message.EqualFold(name, b) {
			continue
		}
		for challenge := range message.Elements(f[i].Value) {
			if isConnectionScheme(challenge) {
				return true
			}
		}
	}
	return false
}

// isConnectionScheme reports whether a challenge or credentials have a scheme that
// authenticates the connection. Nego2 and NegoExts are Negotiate's extensions.
func isConnectionScheme(challenge string) bool {
	scheme := challenge
	if i := strings.IndexAny(challenge, " \t"); i >= 0 {
		scheme = challenge[:i]
	}
	const negotiate = "Nego"
	return message.EqualFold(scheme, "NTLM") || message.EqualFold(scheme, "Kerberos") ||
		len(scheme) >= len(negotiate) && message.EqualFold(scheme[:len(negotiate)], negotiate)
}
