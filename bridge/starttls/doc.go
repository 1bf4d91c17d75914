// Package starttls speaks the plaintext part of protocols that upgrade to TLS
// after a few messages, such as PostgreSQL and SMTP.
//
// Each protocol has one file. Its dialect is a state machine over the bytes
// that the peer sends, with a bound on every line and packet. The package
// knows neither upstreams nor listeners: its caller owns the connection, makes
// the TLS handshake, and bounds the time.
//
// An upgrade is never optional. A peer that refuses, or that sends a single
// byte beyond its agreement to start TLS, fails the connection.
package starttls
