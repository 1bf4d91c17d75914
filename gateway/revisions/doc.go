// Package revisions describes the changes of the desired state, compares revisions and
// returns the edits that roll back to them.
//
// Each Record holds the resources that its revision changed, as they were before. So the
// state of an earlier revision is the live state, with the priors of all later revisions
// put back. A Store owns the records; a History only reads them.
package revisions
