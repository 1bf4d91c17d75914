package upstream

// NoteHandshakeFailure records a failed handshake of e.
func NoteHandshakeFailure(e *Endpoint, err error) { e.note(e.failure("tls", 0, err), true) }

// Answer records the result of a health check of e.
func Answer(e *Endpoint, ok bool) {
	answer := Check{}
	if !ok {
		answer.Reason = "CHECK_FAILED"
	}
	now, changed := e.checker.verdict.note(&e.checker.options, answer)
	e.checker.applyVerdict(now, changed, true, answer)
}

// EndEjection ends e's ejection, if any, as if its time had passed.
func EndEjection(e *Endpoint) {
	if e.outlier.isEjected() {
		e.outlier.record.ejectedUntil.Store(1)
		e.outlier.expire()
	}
}

// Grown returns the fraction of its weight that e has reached.
func Grown(e *Endpoint) float64 {
	var now instant
	return float64(e.grown(&now)) / wholeShare
}
