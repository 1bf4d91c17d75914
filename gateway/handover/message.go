package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
)

// The messages between the old process and the new one, in order. A side that receives any
// other message, or the end of the connection, fails.
const (
	// hello is the new process's first message: its flags are valid, and it needs the
	// store.
	hello = "hello"
	// The old process sends socketList after it has closed the store. Each message carries
	// some descriptors and their names; the last one has Last set.
	socketList = "sockets"
	// The new process sends downList, split like socketList: the resources that are down in
	// it.
	downList = "down"
	// The old process sends liveState, split into parts, only to a new process whose hello has
	// Live set.
	liveState = "live"
	// accept tells the new process to accept connections.
	accept = "accept"
	// accepting is the new process's answer to accept.
	accepting = "accepting"
	// finish tells the new process that it owns the store and the service.
	finish = "finish"
	// The new process sends failed, with the reason in Text, before it exits.
	failed = "failed"
)

const (
	maxMessage  = 64 << 10
	maxInFlight = 64       // descriptors in a message
	maxListed   = 100      // resources in a message
	maxReason   = 300      // bytes
	maxBytes    = 32 << 10 // bytes of Tickets and Live in a message
)

// A message is one packet of the connection. The two processes may have different
// versions: each ignores fields that it does not know.
type message struct {
	Type    string            `json:"type"`
	Text    string            `json:"text,omitempty"`    // hello: the version; failed: the reason
	Names   []string          `json:"names,omitempty"`   // names of the descriptors
	Down    map[string]string `json:"down,omitempty"`    // resource to reason
	Tickets []byte            `json:"tickets,omitempty"` // TLS ticket keys
	Live    bool              `json:"live,omitempty"`    // hello: the new process reads liveState
	State   []byte            `json:"state,omitempty"`   // live state
	Last    bool              `json:"last,omitempty"`
}

// A peer is one end of the connection between the two processes. Its packets keep their
// boundaries and can carry descriptors.
type peer struct{ *net.UnixConn }

// newPeer takes ownership of the descriptor.
func newPeer(f *os.File) (peer, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return peer{}, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return peer{}, errors.New("not a unix socket")
	}
	return peer{conn}, nil
}

func (p peer) send(m message, fds ...int) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(text) > maxMessage {
		return fmt.Errorf("a message of %d bytes is too long", len(text))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	_, _, err = p.WriteMsgUnix(text, rights, nil)
	return err
}

// receive returns the next message, which must have one of the given types. The caller owns
// the files.
func (p peer) receive(want ...string) (message, []*os.File, error) {
	buffer, oob := make([]byte, maxMessage), make([]byte, syscall.CmsgSpace(4*maxInFlight))
	n, oobn, flags, _, err := p.ReadMsgUnix(buffer, oob)
	if errors.Is(err, io.EOF) {
		return message{}, nil, errGone
	}
	if err != nil {
		return message{}, nil, err
	}
	fds, err := descriptorsOf(oob[:oobn])
	fail := func(err error) (message, []*os.File, error) {
		for _, fd := range fds {
			syscall.Close(fd)
		}
		return message{}, nil, err
	}
	switch {
	case err != nil:
		return fail(err)
	case n == 0:
		return fail(errGone)
	case flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0:
		return fail(errors.New("a message was truncated"))
	}
	var m message
	if err := json.Unmarshal(buffer[:n], &m); err != nil {
		return fail(fmt.Errorf("a message is invalid: %w", err))
	}
	switch {
	case m.Type == failed:
		return fail(errors.New(m.Text))
	case !slices.Contains(want, m.Type):
		return fail(fmt.Errorf("the message is %q instead of %q", m.Type, want[len(want)-1]))
	case len(m.Names) != len(fds):
		return fail(fmt.Errorf("%d descriptors have %d names", len(fds), len(m.Names)))
	}
	var files []*os.File
	for i, fd := range fds {
		files = append(files, os.NewFile(uintptr(fd), m.Names[i]))
	}
	return m, files, nil
}

// descriptorsOf returns the descriptors of a control message. Package net has set
// close-on-exec.
func descriptorsOf(oob []byte) ([]int, error) {
	controls, err := syscall.ParseSocketControlMessage(oob)
	var fds []int
	for _, c := range controls {
		some, rightsErr := syscall.ParseUnixRights(&c)
		fds, err = append(fds, some...), errors.Join(err, rightsErr)
	}
	return fds, err
}

// errGone says that the other process has closed its end.
var errGone = errors.New("the connection ended")
