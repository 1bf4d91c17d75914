package access

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Controller holds the policy in force, and its file. Its methods may be called
// concurrently.
type Controller struct {
	file string // the policy file; "": no policy

	reloading sync.Mutex // held by Reload, which can hang with the file system

	mu      sync.Mutex
	policy  *Policy
	digest  [sha256.Size]byte
	changed chan struct{} // closed when policy is replaced
}

// Open returns a Controller for a policy file. With file "", there is no policy, and
// every caller is an admin. It fails if the file cannot be read or is invalid.
func Open(file string) (*Controller, error) {
	c := &Controller{file: file, changed: make(chan struct{})}
	if file == "" {
		return c, nil
	}
	if _, err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// HasFile reports whether there is a policy file, which Reload can read again.
func (c *Controller) HasFile() bool { return c.file != "" }

// Reload reads the file again and reports whether the policy has changed. On an error
// it keeps the current policy.
func (c *Controller) Reload() (changed bool, err error) {
	// A read that hung must not replace a newer policy by an old one.
	if !c.reloading.TryLock() {
		return false, errors.New("the policy is still being read: its file system may hang")
	}
	defer c.reloading.Unlock()
	text, err := fileroot.ReadFile(c.file)
	if err != nil {
		return false, fmt.Errorf("policy %s: %w", c.file, err)
	}
	p, err := ParsePolicy(text)
	if err != nil {
		return false, fmt.Errorf("policy %s: %w", c.file, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	digest := sha256.Sum256(text)
	if c.policy != nil && digest == c.digest {
		return false, nil
	}
	c.policy, c.digest = p, digest
	close(c.changed)
	c.changed = make(chan struct{})
	return true, nil
}

// Role returns the current role of a caller, and a channel that is closed when the
// policy changes.
func (c *Controller) Role(caller *Caller) (adminv1.Role, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.policy.Role(caller), c.changed
}
