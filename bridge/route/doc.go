// Package route matches connections and requests to rules.
//
// A Table is immutable once New returned it, so it may be shared freely; a
// change of rules builds another. Matching allocates nothing. Its time depends
// on the request, not on the number of rules for other hosts and paths. Only
// regular expressions, and rules that differ only in methods and headers, are
// tried one after the other.
//
// Hosts and paths are compared byte by byte, so they must be in the normal
// form of NormalizeHost and NormalizePath. The caller must also forward that
// form, so that the upstream sees exactly what was matched.
package route
