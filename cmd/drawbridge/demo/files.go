package demo

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// demoFiles are the files of a demo that appear in its commands.
type demoFiles struct {
	config                string // the gateway's first configuration
	route, rotate         string // files for drawbridge apply
	routeJSON, rotateJSON string // requests for grpcurl
}

// issueDemo makes the demo's CA in dir, and two client certificates of the gateway: the
// first, and a second to rotate to.
func issueDemo(dir string) (*pki.CA, error) {
	ca, err := pki.Init(dir, pki.CAOptions{CommonName: "Drawbridge demo CA"}, nil)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"gateway", "gateway-2"} {
		if _, err := ca.IssueTo(dir, name, pki.LeafOptions{CommonName: name, Usage: pki.Client}); err != nil {
			return nil, err
		}
	}
	return ca, nil
}

const demoConfig = `# The first configuration of the demo's gateway.
kind: TrustBundle
name: demo-ca
file: pki/ca.pem
---
kind: Certificate
name: gateway
files: {certificatePath: pki/gateway.pem, privateKeyPath: pki/gateway-key.pem}
---
kind: Upstream
name: web
endpoints:
- address: %s
- address: %s
tls: {certificate: gateway, trustBundles: [demo-ca], serverName: web.demo.test}
---
kind: Upstream
name: echo
endpoints:
- address: %s
tls: {certificate: gateway, trustBundles: [demo-ca], serverName: echo.demo.test}
---
kind: Listener
name: web
address: %s
protocol: HTTP
upstream: web
---
kind: Listener
name: echo
address: %s
protocol: TCP
upstream: echo
`

const demoRoute = `# A route that responds without an upstream.
kind: Route
name: hello
listeners: [web]
match: {path: {prefix: /hello}}
respond: {body: "hello from a route that was added while traffic flowed\n"}
`

const demoRotate = `# The gateway's second client certificate, under the name of the first.
kind: Certificate
name: gateway
files: {certificatePath: pki/gateway-2.pem, privateKeyPath: pki/gateway-2-key.pem}
`

// writeDemoFiles writes the configurations into dir, with listeners at web and
// echo.
func writeDemoFiles(dir string, ups *demoUpstreams, web, echo string) (*demoFiles, error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	files := &demoFiles{config: at("demo.yaml"), route: at("route.yaml"), rotate: at("rotate.yaml"), routeJSON: at("route.json"), rotateJSON: at("rotate.json")}
	type object map[string]any
	route, err := json.MarshalIndent(object{"route": object{
		"name": "hello-grpc", "listeners": []string{"web"}, "match": object{"path": object{"prefix": "/grpc"}},
		"respond": object{"body": "hello from a route that was added over gRPC\n"},
	}}, "", "  ")
	if err != nil {
		return nil, err
	}
	chain, err := os.ReadFile(at("pki/gateway-2.pem"))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(at("pki/gateway-2-key.pem"))
	if err != nil {
		return nil, err
	}
	rotate, err := json.MarshalIndent(object{"certificate": object{
		"name": "gateway", "pem": object{"certificateChain": string(chain), "privateKey": string(key)},
	}}, "", "  ")
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(demoConfig, ups.web1.address, ups.web2.address, ups.echo.address, web, echo)
	for path, text := range map[string]string{
		files.config: config, files.route: demoRoute, files.rotate: demoRotate,
		files.routeJSON: string(route), files.rotateJSON: string(rotate),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// anyPort lets the kernel choose a port.
const anyPort = "127.0.0.1:0"

// loopbackAddress returns a loopback address with the port if that is free, or else with a port
// that the kernel chooses.
func loopbackAddress(port string) string {
	address := net.JoinHostPort("127.0.0.1", port)
	lis, err := net.Listen("tcp", address)
	if err != nil {
		return anyPort
	}
	lis.Close()
	return address
}
