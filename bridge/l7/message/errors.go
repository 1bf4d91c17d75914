package message

import "errors"

// Errors that say how a request failed upstream, whichever version of HTTP carried
// it. They are matched with errors.Is.
var (
	// ErrUnprocessed reports that the upstream did not act upon the request, so
	// that it may be sent again, whatever its method.
	ErrUnprocessed = errors.New("the request was not processed")

	// ErrStreamRefused reports that the upstream did not act upon the request
	// because it refused its stream, but goes on serving others.
	ErrStreamRefused = errors.New("the stream was refused")

	// ErrReset reports that the peer ended the stream or connection, or that the
	// connection failed.
	ErrReset = errors.New("the stream or connection was reset")

	// ErrHeadTooLarge reports that the upstream accepts no header as large as the
	// request's. Nothing of it was sent.
	ErrHeadTooLarge = errors.New("the request's header is larger than the peer accepts")

	// ErrNoStreams reports an upstream that allows no request on its connection.
	ErrNoStreams = errors.New("the upstream allows no requests on its HTTP/2 connection (SETTINGS_MAX_CONCURRENT_STREAMS is 0)")
)
