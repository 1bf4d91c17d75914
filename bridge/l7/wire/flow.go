package wire

// A Flow carries the bytes that arrive on one connection to another. While both
// sides know of it, they move large blocks at once, and neither holds a large
// buffer while it waits. The zero Flow does nothing.
type Flow struct {
	In  *Reader
	Out *Writer
}

// Begin tells both sides about the flow.
func (f Flow) Begin() {
	if f.In != nil {
		f.In.sock.FlowInto(f.Out.sock)
		f.Out.from = f.In
	}
}

// End makes both sides forget the flow.
func (f Flow) End() {
	if f.In != nil {
		f.In.sock.FlowInto(nil)
		f.Out.from = nil
	}
}

// Forward copies from in to out until a read would block, and adds the number of
// bytes to count. If the stream has ended, in.Err returns io.EOF or the error.
func Forward(in *Reader, out *Writer, count *uint64) error {
	for {
		if err := out.Write(in.unread); err != nil {
			return err
		}
		*count += uint64(len(in.unread))
		in.Consume(len(in.unread))
		in.Release()
		if got, _ := in.Try(); !got { // an error is in in.err
			return out.Flush()
		}
	}
}
