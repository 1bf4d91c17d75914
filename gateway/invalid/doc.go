// Package invalid collects all faults of a request, each with the path of its field.
//
// A check fills a List and returns one *Error, so that the client sees every fault at
// once. A List belongs to one goroutine. The package does not know gRPC: gateway/admin
// turns classes into status codes.
package invalid
