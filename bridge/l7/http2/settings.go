package http2

import h2 "golang.org/x/net/http2"

func (c *conn) onSettings(f *h2.SettingsFrame) *Error {
	if f.IsAck() {
		if c.unacked--; c.unacked < 0 {
			return broken(h2.ErrCodeProtocol, "an acknowledgement of nothing")
		}
		return nil
	}
	c.mu.Lock()
	end := c.uselessLocked(1 + f.NumSettings())
	for i := 0; i < f.NumSettings() && end == nil; i++ {
		end = c.settingLocked(f.Setting(i))
	}
	if end == nil {
		c.out.settingsAck()
	}
	c.settled.Store(true)
	c.out.room.wakeAll() // who waits for the settings is among them
	c.mu.Unlock()
	if c.client != nil {
		c.client.changed()
	}
	return end
}

// settingLocked does what one of the peer's settings says (section 6.5.2).
func (c *conn) settingLocked(s h2.Setting) *Error {
	switch s.ID {
	case h2.SettingHeaderTableSize:
		c.encoder.hpack.SetMaxDynamicTableSize(s.Val) // or less: headerTable is the most
	case h2.SettingEnablePush:
		if s.Val > 1 || s.Val == 1 && c.client != nil {
			return broken(h2.ErrCodeProtocol, "an ENABLE_PUSH that is not allowed")
		}
	case h2.SettingMaxConcurrentStreams:
		c.peer.maxStreams = int(min(s.Val, maxWindow))
	case h2.SettingInitialWindowSize:
		if s.Val > maxWindow {
			return broken(h2.ErrCodeFlowControl, "an INITIAL_WINDOW_SIZE that is too large")
		}
		delta := int64(s.Val) - c.peer.window
		c.peer.window = int64(s.Val)
		for _, st := range c.streams {
			if st.sendWindow += delta; st.sendWindow > maxWindow {
				return broken(h2.ErrCodeFlowControl, "a window that is too large")
			}
			st.writable.Signal()
		}
	case h2.SettingMaxFrameSize:
		if s.Val < maxFrame || s.Val > 1<<24-1 {
			return broken(h2.ErrCodeProtocol, "a MAX_FRAME_SIZE that is not allowed")
		}
		// maxFrame is always allowed, and is enough.
	case h2.SettingMaxHeaderListSize:
		c.peer.maxHeaderBytes = int64(s.Val)
	case h2.SettingEnableConnectProtocol:
		if s.Val > 1 || s.Val == 0 && c.peer.extendedConnect {
			return broken(h2.ErrCodeProtocol, "an ENABLE_CONNECT_PROTOCOL that is not allowed")
		}
		c.peer.extendedConnect = s.Val == 1
	}
	return nil
}

func (c *conn) onWindowUpdate(f *h2.WindowUpdateFrame) *Error {
	c.mu.Lock()
	end := c.uselessLocked(1)
	var why *Error
	var gone ended
	s := c.streams[f.StreamID]
	switch {
	case end != nil:
	case f.StreamID == 0:
		if c.sendWindow += int64(f.Increment); c.sendWindow > maxWindow {
			end = broken(h2.ErrCodeFlowControl, "a window that is too large")
		}
		c.out.turn.wake()
	case s != nil:
		if s.sendWindow += int64(f.Increment); s.sendWindow > maxWindow {
			why = &Error{Code: h2.ErrCodeFlowControl, Reason: "a window that is too large"}
			gone, end = c.refuseLocked(f.StreamID, why)
		}
		s.writable.Signal()
	case c.neverOpened(f.StreamID):
		end = broken(h2.ErrCodeProtocol, "WINDOW_UPDATE on a stream that was never opened")
	}
	c.mu.Unlock()
	if why != nil {
		c.refused(gone, why)
	}
	return end
}
