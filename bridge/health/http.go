package health

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// HTTPOptions describe an HTTP request and the expected response. The zero
// value of every field is valid.
type HTTPOptions struct {
	Path   string  // may have a query; "": "/"
	Host   string  // may have a port; "": the server name of the endpoint, or its address
	Method string  // "": GET
	Codes  []Codes // the expected codes; empty: 200 to 299

	// Contains must occur in the first 64 KiB of the body.
	Contains string

	// PriorKnowledge selects HTTP/2 in plaintext. With TLS, ALPN selects the
	// version.
	PriorKnowledge bool
}

// Codes is a range of status codes.
type Codes struct{ From, To int }

// HTTP checks the response to a request.
func HTTP(o HTTPOptions) Check {
	r := &request{
		method: cmp.Or(o.Method, http.MethodGet), path: cmp.Or(o.Path, "/"), host: o.Host, prior: o.PriorKnowledge,
		header: http.Header{"User-Agent": {userAgent}, "Accept": {"*/*"}},
	}
	if len(o.Codes) == 0 {
		o.Codes = []Codes{{200, 299}}
	}
	return func(ctx context.Context, e *upstream.Endpoint) error { return r.send(ctx, e, o.checkResponse) }
}

const userAgent = "Drawbridge-Health-Check"

// checkResponse checks a response.
func (o *HTTPOptions) checkResponse(resp *http.Response) error {
	if !slices.ContainsFunc(o.Codes, func(c Codes) bool { return c.From <= resp.StatusCode && resp.StatusCode <= c.To }) {
		return failed(fmt.Sprintf("the endpoint answered %d, which is not %s", resp.StatusCode, o.codes()))
	}
	if o.Contains == "" {
		return nil
	}
	// Read only a part, because an endpoint may send an endless body.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if bytes.Contains(body, []byte(o.Contains)) {
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return failed(fmt.Sprintf("the endpoint answered %d, but the first %d bytes of the body do not contain %q", resp.StatusCode, len(body), o.Contains))
}

// codes returns the expected codes as text: "200 to 299 or 401".
func (o *HTTPOptions) codes() string {
	var all []string
	for _, c := range o.Codes {
		if c.From == c.To {
			all = append(all, fmt.Sprint(c.From))
		} else {
			all = append(all, fmt.Sprintf("%d to %d", c.From, c.To))
		}
	}
	return strings.Join(all, " or ")
}
