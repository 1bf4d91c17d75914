package message

import "errors"

// Errors that say how a request failed upstream, the same for every HTTP
// version. Match them with errors.Is.
var (
	// ErrUnprocessed reports that the upstream did not process the request, so
	// that it may be retried, even if its method is not idempotent.
	ErrUnprocessed = errors.New("the request was not processed")

	// ErrStreamRefused reports that the upstream refused the request's stream
	// and did not process it. The connection still serves other streams.
	ErrStreamRefused = errors.New("the stream was refused")

	// ErrReset reports that the peer reset the stream or closed the connection,
	// or that the connection failed.
	ErrReset = errors.New("the stream or connection was reset")

	// ErrHeadTooLarge reports that the request's header exceeds the upstream's
	// limit. Nothing was sent.
	ErrHeadTooLarge = errors.New("the request's header is larger than the peer accepts")

	// ErrNoStreams reports an upstream that allows no request on its connection.
	ErrNoStreams = errors.New("the upstream allows no requests on its HTTP/2 connection (SETTINGS_MAX_CONCURRENT_STREAMS is 0)")
)
