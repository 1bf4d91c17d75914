package exchange

import (
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
)

// Outlier detection rates endpoints by the outcome of each request sent to them. Each
// outcome is reported once. If a request ends without a response, blame reports a
// failure of the endpoint. A failure that the client causes, by leaving, or by sending
// or reading too slowly, is not reported.

// reportHead reports the head of a response, if no body follows or the response is a
// failure.
func (t *attempts) reportHead() {
	switch r := &t.x.response; {
	case r.Status >= 500:
		t.endpoint.NoteResult(false)
	case r.Status == 101:
		t.endpoint.NoteStream()
	case r.Length == 0:
		t.endpoint.NoteResult(!t.callFailed(r.Fields))
	}
}

// reportEnd reports how a whole response ended.
func (t *attempts) reportEnd(trailer message.Fields) {
	if t.x.response.Status < 500 {
		t.endpoint.NoteResult(!t.callFailed(trailer))
	}
}

// reportBroken reports an incomplete response, unless the client caused that.
func (t *attempts) reportBroken(err error) {
	if err != errStalled && t.x.cancel.failed() {
		if err = t.x.cancel.upstreamTimeout(); err == nil || !t.x.upload.sent.Load() || t.x.deadlines.clientSlow.Load() {
			return
		}
	}
	t.endpoint.NoteBroken(reasonOf(err), err, t.x.response.Status >= 500)
}

// reportLate reports that an endpoint received the whole request but did not
// answer in time.
func (t *attempts) reportLate(cause error) {
	if t.endpoint != nil && t.x.upload.sent.Load() {
		t.endpoint.NoteBroken(reasonOf(cause), cause, false)
	}
}

// callFailed reports whether the fields have a gRPC status that says that the server
// failed.
func (t *attempts) callFailed(f message.Fields) bool { return t.x.GRPC && policy.ServerFailed(f) }
