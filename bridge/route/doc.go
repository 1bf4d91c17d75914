// Package route matches connections and requests to rules.
//
// A Table is immutable, so it may be shared freely. A change of rules builds a
// new Table. Matching allocates nothing. Its time depends on the request, not
// on the number of rules for other hosts and paths. Only regular expressions,
// and rules that differ only in methods and headers, are tried one after
// another.
//
// Hosts and paths are compared byte by byte, so they must be in the normal form
// of NormalizeHost and NormalizePath. The caller must also forward that form,
// so that the upstream sees exactly the matched host and path.
package route
