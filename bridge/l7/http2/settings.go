package http2

import h2 "golang.org/x/net/http2"

func (in *inbox) onSettings(f *h2.SettingsFrame) *Error {
	c := in.conn
	if f.IsAck() {
		if in.unacked--; in.unacked < 0 {
			return broken(h2.ErrCodeProtocol, "an acknowledgment without SETTINGS")
		}
		return nil
	}
	end := in.applySettings(f)
	if c.client != nil {
		c.client.changed()
	}
	return end
}

func (in *inbox) applySettings(f *h2.SettingsFrame) *Error {
	c := in.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if end := c.abuse.spend(framesAccount, connFrameCosts[h2.FrameSettings]+f.NumSettings()); end != nil {
		return end
	}
	for i := range f.NumSettings() {
		if end := in.settingLocked(f.Setting(i)); end != nil {
			return end
		}
	}
	c.out.settingsAck()
	in.gotSettings.Store(true)
	c.out.room.wakeAll() // Connects waits there for the settings
	return nil
}

// settingLocked applies one of the peer's settings (section 6.5.2).
func (in *inbox) settingLocked(s h2.Setting) *Error {
	c := in.conn
	switch s.ID {
	case h2.SettingHeaderTableSize:
		c.encoder.hpack.SetTableSize(s.Val)
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
		if end := c.abuse.spend(framesAccount, len(c.streams)/streamsPerCost); end != nil {
			return end
		}
		delta := int64(s.Val) - c.peer.window
		c.peer.window = int64(s.Val)
		for _, st := range c.streams {
			if st.sendWindow += delta; st.sendWindow > maxWindow {
				return broken(h2.ErrCodeFlowControl, "a window that is too large")
			}
			st.wakeWriterLocked()
		}
	case h2.SettingMaxFrameSize:
		if s.Val < maxFrame || s.Val > 1<<24-1 {
			return broken(h2.ErrCodeProtocol, "a MAX_FRAME_SIZE that is not allowed")
		}
		// Frames of maxFrame are always allowed and large enough.
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
