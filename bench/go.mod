module github.com/drawbridge-gateway/drawbridge/bench

go 1.26.6

require (
	github.com/drawbridge-gateway/drawbridge v0.0.0
	go.uber.org/goleak v1.3.0
)

replace github.com/drawbridge-gateway/drawbridge => ../
