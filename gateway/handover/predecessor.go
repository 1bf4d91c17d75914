package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// descriptorVariable is the environment variable that holds the number of the descriptor
// of a new process's connection to the old one.
const descriptorVariable = "DRAWBRIDGE_UPGRADE_FD"

// A Predecessor is the process that this one replaces.
type Predecessor struct {
	peer
	lent bool // this process has received the sockets and the store
}

// Inherit returns the process that started this one to replace it, or nil.
func Inherit() (*Predecessor, error) {
	text := os.Getenv(descriptorVariable)
	if text == "" {
		return nil, nil
	}
	os.Unsetenv(descriptorVariable)
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s is %q: only an upgrade sets it", descriptorVariable, text)
	}
	p, err := newPeer(os.NewFile(uintptr(fd), "upgrade"))
	if err != nil {
		return nil, fmt.Errorf("%s is %q: only an upgrade sets it: %w", descriptorVariable, text, err)
	}
	return &Predecessor{peer: p}, nil
}

// A Transfer holds what the old process passes on.
type Transfer struct {
	Sockets []*os.File // the argument of New
	Tickets []byte     // TLS ticket keys
}

// Take reports that this process is able to run, and waits until the old one has closed
// the store. It fails if ctx ends.
func (p *Predecessor) Take(ctx context.Context, version string) (Transfer, error) {
	defer p.endWith(ctx)()
	var e Transfer
	err := p.send(message{Type: hello, Text: version, Live: true})
	for last := false; err == nil && !last; {
		var m message
		var files []*os.File
		if m, files, err = p.receive(socketList); err == nil {
			e.Sockets, e.Tickets, last = append(e.Sockets, files...), append(e.Tickets, m.Tickets...), m.Last
		}
	}
	if err != nil {
		for _, f := range e.Sockets {
			f.Close()
		}
		return Transfer{}, fmt.Errorf("the process that this one replaces: %w", err)
	}
	p.lent = true
	return e, nil
}

// Ready reports that every socket is bound, and which resources are down. It returns the
// live state of the old process, which is empty if that process passes none on. When the
// error is nil, this process must accept connections.
func (p *Predecessor) Ready(ctx context.Context, down map[string]string) (live []byte, err error) {
	defer p.endWith(ctx)()
	batch := map[string]string{}
	for resource, reason := range down {
		if batch[resource] = reason[:min(len(reason), maxReason)]; len(batch) == maxListed {
			if err := p.send(message{Type: downList, Down: batch}); err != nil {
				return nil, p.survive(ctx, err)
			}
			batch = map[string]string{}
		}
	}
	if err := p.send(message{Type: downList, Down: batch, Last: true}); err != nil {
		return nil, p.survive(ctx, err)
	}
	for {
		m, _, err := p.receive(liveState, accept)
		if err != nil {
			return nil, p.survive(ctx, err) // an incomplete state is useless
		}
		if m.Type == accept {
			return live, nil
		}
		live = append(live, m.State...)
	}
}

// Accepting reports that this process accepts connections. When it returns nil, this
// process owns the store.
func (p *Predecessor) Accepting(ctx context.Context) error {
	defer p.endWith(ctx)()
	if err := p.send(message{Type: accepting}); err != nil {
		return p.survive(ctx, err)
	}
	_, _, err := p.receive(finish)
	if err = p.survive(ctx, err); err != nil {
		return err
	}
	// The old process closes its side after it has told the service manager that this
	// process is the main one. Before that, the manager ignores this process.
	p.SetDeadline(time.Now().Add(managerTimeout))
	_, _, _ = p.receive(finish)
	return nil
}

// managerTimeout limits how long a new process waits for the old one to notify the service
// manager.
const managerTimeout = 5 * time.Second

// survive returns nil instead of an error if the error shows that the old process has died
// after Take: only this process is left to serve the clients.
func (p *Predecessor) survive(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	if p.lent && (errors.Is(err, errGone) || isBroken(err)) {
		return nil
	}
	return err
}

// Serving reports that this process serves clients. It does nothing on a nil Predecessor.
func (p *Predecessor) Serving() {
	if p != nil {
		p.Close()
	}
}

// Fail reports why this process cannot take over. It does nothing on a nil Predecessor.
func (p *Predecessor) Fail(err error) {
	if p == nil {
		return
	}
	p.SetDeadline(time.Now().Add(time.Second))
	_ = p.send(message{Type: failed, Text: clip(err.Error())})
	p.Close()
}

// maxText bounds an error in a message.
const maxText = 4 << 10

func clip(text string) string { return text[:min(len(text), maxText)] }

// endWith makes send and receive fail when ctx ends, until the caller calls the returned
// function.
func (p peer) endWith(ctx context.Context) func() bool {
	return context.AfterFunc(ctx, func() { p.SetDeadline(time.Unix(1, 0)) })
}
