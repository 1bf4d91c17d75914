package http1

import "cmp"

// Limits bound the cost of one message. Zero fields mean the default.
type Limits struct {
	Head    int   // bytes of a head, first line and final empty line included; 64 KiB
	Target  int   // bytes of a request target; 32 KiB
	Fields  int   // fields of a head or a trailer; 256
	Trailer int   // bytes of a trailer; 16 KiB
	Body    int64 // bytes of a body; no limit
}

func (l *Limits) head() int    { return cmp.Or(l.Head, 64<<10) }
func (l *Limits) target() int  { return cmp.Or(l.Target, 32<<10) }
func (l *Limits) fields() int  { return cmp.Or(l.Fields, 256) }
func (l *Limits) trailer() int { return cmp.Or(l.Trailer, 16<<10) }

// requestLine returns the maximum length of a request line.
func (l *Limits) requestLine() int { return maxMethod + len(" ") + l.target() + len(" HTTP/1.1\r") }

// body reports whether a body may have n bytes.
func (l *Limits) body(n int64) bool { return l.Body == 0 || n <= l.Body }

// maxOptions bounds the connection options of a head. Each option names fields,
// and every other field is compared with it.
const maxOptions = 32

// maxMethod is longer than any registered method.
const maxMethod = 32
