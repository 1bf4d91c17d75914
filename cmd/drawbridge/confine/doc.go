// Package confine removes rights that the process does not need. Landlock limits the
// files that the process can use. With no_new_privs, no program that the process starts
// can gain rights.
//
// Rules is a pure function from paths to the rules of Landlock. Apply passes the rules to
// the kernel. Child processes inherit both restrictions, and no process can lift them. So
// the new process of an upgrade has the restrictions of the old one.
package confine
