package snapshot

import (
	"io/fs"
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// unix returns which users may connect to the listener's unix socket.
func (s listenerScope) unix(network string, o *adminv1.UnixOptions) unixsocket.Options {
	if o == nil {
		return unixsocket.Options{}
	}
	if network != "" && network != "unix" {
		s.Add("unix", "must be left out: the listener's address is not a unix: address")
	}
	out := unixsocket.Options{Group: o.GetGroup()}
	if o.GetMode() != "" {
		mode, err := strconv.ParseUint(o.GetMode(), 8, 32)
		if err != nil || mode > 0o777 || mode&0o200 == 0 {
			s.Add("unix.mode", "is %.20q; it must be permissions in octal that let the owner write, such as \"0660\"", o.GetMode())
		}
		out.Mode = fs.FileMode(mode)
	}
	if err := unixsocket.CheckGroup(o.GetGroup()); err != nil {
		s.Add("unix.group", "%v", err)
	}
	return out
}
