package splice

// NewWaiting returns an Engine whose splices are waited for by goroutines, as
// where there is no epoll.
func NewWaiting() *Engine { return newEngine() }
