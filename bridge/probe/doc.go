// Package probe finds out whether the gateway can complete a handshake with an
// endpoint and, if not, explains why and which setting to change.
//
// A probe owns its connections. It uses the settings of traffic, but neither its
// sessions nor its counters. It sends no application data, except for one request
// on another connection if the caller provides one. After a failed handshake it
// tries again with one setting changed at a time, to find a change that works. No
// trial verifies less than the settings require.
//
// Text from the endpoint is bounded and escaped in every result. Fields are
// named as in the API.
package probe
