// Package soak runs a gateway under mixed load while its configuration and certificates
// change, its endpoints fail and its process is replaced, and checks that it finally
// uses no more resources than at the start.
//
// Run owns the gateway, the servers behind it and every client, and has ended all of them
// when it returns.
package soak
