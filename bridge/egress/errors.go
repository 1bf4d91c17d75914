package egress

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// failed returns the error for a failure at the proxy. Err may be nil.
func (p *Proxy) failed(reason certs.Reason, err error, format string, args ...any) error {
	text := "the " + p.String() + " " + fmt.Sprintf(format, args...)
	if err != nil {
		text += ": " + certs.ErrorText(err)
	}
	return &certs.VerifyError{Reason: reason, Detail: text, Err: err}
}

// ended reports whether an operation failed because ctx ended. The connection has
// the same deadline, and may time out first.
func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// maxQuoted bounds how much an error quotes of the proxy's answer.
const maxQuoted = 160

// quote returns the proxy's text in quotes, escaped and bounded.
func quote(received string) string {
	return strconv.QuoteToASCII(received[:min(len(received), maxQuoted)])
}
