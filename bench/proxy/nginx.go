package proxy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
)

// Nginx is nginx with its stream module.
type Nginx struct{}

// streamModules are the paths of the stream module in distributions. Builds that
// include it need no file.
var streamModules = []string{
	"/usr/lib/nginx/modules/ngx_stream_module.so",
	"/usr/lib64/nginx/modules/ngx_stream_module.so",
}

// Name implements Kind.
func (Nginx) Name() string { return "nginx" }

// Version implements Kind.
func (Nginx) Version(ctx context.Context) (string, error) {
	out, err := output(ctx, "nginx", "-V")
	if err != nil {
		return "", err
	}
	if !strings.Contains(out, "--with-stream ") && streamModule() == "" {
		return "", fmt.Errorf("nginx has no stream module (Debian: libnginx-mod-stream)")
	}
	return strings.TrimPrefix(firstLine(out), "nginx version: "), nil
}

// Unsupported implements Kind.
func (Nginx) Unsupported(s Service) string {
	switch {
	case s.Admin:
		return noAdmin
	case s.Postgres:
		return noPostgres
	case s.UpstreamHTTP2 && !s.GRPC:
		return "speaks no HTTP/2 to upstreams before 1.29.4"
	}
	return ""
}

func (Nginx) command(w work) (command, error) {
	path, err := lookPath("nginx")
	if err != nil {
		return command{}, err
	}
	conf, err := w.file("nginx.conf", nginxConfig(w, streamModule()))
	return command{path: path, args: []string{"-p", w.dir, "-e", filepath.Join(w.dir, "error.log"), "-c", conf}}, err
}

func streamModule() string {
	for _, path := range streamModules {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

func nginxConfig(w work, module string) string {
	var b strings.Builder
	if module != "" && !w.service.HTTP {
		fmt.Fprintf(&b, "load_module %s;\n", module)
	}
	fmt.Fprintf(&b, `daemon off;
worker_processes 2;
worker_rlimit_nofile 16384;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log warn;
events { worker_connections 8192; }
`, w.dir)
	reuse := "on"
	if w.service.NoResumption {
		reuse = "off"
	}
	upstreamTLS := fmt.Sprintf(`proxy_ssl_certificate %s;
    proxy_ssl_certificate_key %s;
    proxy_ssl_trusted_certificate %s;
    proxy_ssl_verify on;
    proxy_ssl_name %s;
    proxy_ssl_server_name on;
    proxy_ssl_session_reuse %s;
    proxy_ssl_protocols TLSv1.2 TLSv1.3;`,
		w.keys.Client.Chain, w.keys.Client.Key, w.keys.CA, keys.BackendName, reuse)
	if w.service.GRPC {
		upstreamTLS = strings.ReplaceAll(upstreamTLS, "proxy_ssl_", "grpc_ssl_")
	}
	listen := "listen " + w.listen
	if w.service.ListenTLS {
		listen += " ssl"
		if w.service.ClientHTTP2 {
			listen += " http2"
		}
		listen += fmt.Sprintf(`;
    ssl_certificate %s;
    ssl_certificate_key %s;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:tls:10m`, w.keys.Listener.Chain, w.keys.Listener.Key)
	}
	if !w.service.HTTP {
		fmt.Fprintf(&b, `stream {
  access_log off;
  upstream backend { server %s; }
  server {
    %s;
    proxy_pass backend;
    proxy_timeout 1h;
    proxy_ssl on;
    %s
  }
}
`, w.backend, listen, upstreamTLS)
		return b.String()
	}
	fmt.Fprintf(&b, `http {
  access_log off;
  keepalive_requests 1000000000;
  proxy_temp_path %[1]s/proxy; client_body_temp_path %[1]s/body;
  fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  upstream backend {
    server %[2]s;
    keepalive 512;
    keepalive_requests 1000000000;
  }
  server {
    %[3]s;
    location / {
    %[4]s
    %[5]s
    }
  }
}
`, w.dir, w.backend, listen, nginxPass(w.service), upstreamTLS)
	return b.String()
}

// nginxPass returns the directives that forward requests.
func nginxPass(s Service) string {
	if s.GRPC {
		return "grpc_pass grpcs://backend;"
	}
	connection := `proxy_set_header Connection "";`
	if s.WebSocket {
		connection = `proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";`
	}
	return `proxy_pass https://backend;
    proxy_http_version 1.1;
    ` + connection + `
    proxy_set_header Host $host;
    client_max_body_size 0;
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    proxy_buffer_size 16k;
    proxy_buffers 16 32k;
    proxy_busy_buffers_size 64k;`
}
