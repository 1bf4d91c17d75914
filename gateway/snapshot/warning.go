package snapshot

// Codes of warnings: the values of WarningCode in the API.
const (
	warnCertificate       = "CERTIFICATE"
	warnVerification      = "VERIFICATION"
	warnDeprecatedTLS     = "DEPRECATED_TLS"
	warnCipherSuites      = "CIPHER_SUITES"
	warnServerName        = "SERVER_NAME"
	warnClientCertificate = "CLIENT_CERTIFICATE"
	warnNoEffect          = "NO_EFFECT"
	warnTrustsEverybody   = "TRUSTS_EVERYBODY"
	warnClientAuthUsage   = "CLIENT_AUTH_USAGE"
	warnPlaintextClients  = "PLAINTEXT_CLIENTS"
	warnMore              = "MORE"
)
