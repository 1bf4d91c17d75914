package splice

// NewWaiting returns an Engine that uses goroutines, as on systems without epoll.
func NewWaiting() *Engine { return newEngine() }
