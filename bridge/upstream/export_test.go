package upstream

// NoteHandshakeFailure has e note a handshake that failed.
func NoteHandshakeFailure(e *Endpoint, err error) { e.note(e.failure("tls", 0, err), true) }

// Answer has e answer its health check.
func Answer(e *Endpoint, ok bool) {
	answer := Check{}
	if !ok {
		answer.Reason = "CHECK_FAILED"
	}
	now, changed := e.checker.verdict.note(&e.checker.options, answer)
	e.checker.applyVerdict(now, changed, true, answer)
}

// EndEjection lets the time of e's ejection be over, if there is one.
func EndEjection(e *Endpoint) {
	if e.outlier.isOut() {
		e.outlier.record.out.Store(1)
		e.outlier.over()
	}
}
