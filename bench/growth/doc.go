// Package growth measures how the costs of a gateway grow: with connections, with routes,
// with certificates, and with revisions. It prints each figure with its slope, and draws
// it.
//
// A measurement owns the gateways that it starts and the directory that holds their
// stores.
package growth
