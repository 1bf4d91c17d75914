// Package invalid gathers everything that is wrong with a request, each fault
// with the path of its field.
//
// A List is filled while a request is checked and ends in one *Error, so that
// whoever made the request learns of every fault at once. The package knows
// nothing of gRPC; gateway/admin turns classes into status codes.
package invalid
