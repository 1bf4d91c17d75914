// Package access decides what a caller of the admin API may do. A Policy gives roles to
// subjects, which are names of callers. Rights returns the right that each method
// needs. A Controller holds the policy file in force.
package access
