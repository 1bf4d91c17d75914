// Package access decides what a caller of the admin API may do. A Policy gives roles to
// subjects, which are names of callers; Rights says which right each method needs; a
// Controller holds the policy file that is in force.
package access
