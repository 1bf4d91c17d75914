// Package confine takes rights from the process that it no longer needs: Landlock limits
// the files that the process can use, and no_new_privs stops programs that it starts from
// gaining rights.
//
// Rules is a pure function from paths to the rules of Landlock. Apply gives the rules to
// the kernel. Both restrictions are inherited by child processes and can never be lifted,
// so the new process of an upgrade has those of the old one.
package confine
