// Package route decides which rule a connection or a request falls under.
//
// A Table is immutable once New returned it, so it may be shared freely; a
// change of rules builds another. Matching allocates nothing and takes time
// that depends on the request, not on how many rules name other hosts and
// paths. Only regular expressions, and rules that differ by nothing but
// methods and headers, are tried one after the other.
//
// Hosts and paths are compared byte by byte, so they must be in the one form
// that NormalizeHost and NormalizePath make. A caller forwards that form too:
// what was matched is what the upstream sees.
package route
