// Package confine removes rights that the process does not need: Landlock limits the
// files that the process can use, and no_new_privs stops programs that it starts from
// gaining rights.
//
// Rules is a pure function from paths to the rules of Landlock. Apply passes the rules to
// the kernel. Both restrictions are inherited by child processes and can never be lifted,
// so the new process of an upgrade has the restrictions of the old one.
package confine
