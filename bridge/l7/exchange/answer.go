package exchange

import (
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Answer responds with an error of the gateway, unless a response has begun.
func (x *Exchange) Answer(a policy.Answer) {
	if x.code != 0 {
		return
	}
	x.Log.Status = a.GRPC
	body := a.Write(&x.response, x.GRPC)
	x.Facts.ReturnRequestID(&x.response.Fields, x.Rules.RequestIDField)
	x.respond(body)
}

// Respond sends the response that the route itself defines. Its only field is name,
// besides the fields that rules add.
func (x *Exchange) Respond(status int, name, value, body string) {
	x.response = message.Response{Status: status, Fields: x.response.Fields[:0], Declared: -1}
	x.response.Fields.Add(name, value)
	x.applyRules()
	x.respond(body)
}

// applyRules applies the route's rules to a final response that is not an error of
// the gateway.
func (x *Exchange) applyRules() {
	x.Facts.ReturnRequestID(&x.response.Fields, x.Rules.RequestIDField)
	if x.Rules.Response != nil {
		x.Rules.Response.ApplyResponse(&x.response.Fields, &x.Facts)
	}
}

// respond sends x.response with a body.
func (x *Exchange) respond(body string) {
	r := &x.response
	if f, ok := x.front.(bodySkipper); ok && !x.upload.started {
		f.SkipBody()
	}
	switch {
	case r.Status == 204:
		body = ""
	case x.Facts.Request.Method == "HEAD" || r.Status == 304:
		r.Declared, body = int64(len(body)), ""
	}
	r.Length = int64(len(body))
	x.code = r.Status
	x.addDate()
	x.uncountClient()
	err := x.front.Respond(r, body == "")
	if err == nil && body != "" {
		if err = x.front.Write([]byte(body)); err == nil {
			x.Log.ToClient = uint64(len(body))
			err = x.front.End(nil)
		}
	}
	if err != nil { // the client has gone
		x.abort(err)
	}
}

// addDate gives the response a Date, if it has none (RFC 9110, section 6.6.1).
func (x *Exchange) addDate() {
	if !x.response.Fields.Has("Date") {
		x.response.Fields.Add("Date", x.shared.Clock.Date())
	}
}

// CloseAfter closes the connection after this request, if the front supports that: see
// closer.
func (x *Exchange) CloseAfter() {
	if f, ok := x.front.(closer); ok {
		f.CloseAfter()
	}
}

// refuse sends the gateway's own answer instead of asking the upstream.
func (x *Exchange) refuse(a policy.Answer) {
	x.front.Refuse()
	x.Answer(a)
}

// abort ends the exchange without a response, or in the middle of one.
func (x *Exchange) abort(cause error) {
	x.uncountClient()
	if x.cancel.ranOut() && x.endAtDeadline() {
		x.Log.Status, x.Log.Reason = policy.GatewayTimeout.GRPC, certs.ReasonResponseTimeout
		return
	}
	x.aborted = true
	x.front.Abort(cause)
}
