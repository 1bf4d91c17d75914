package main

import (
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"fmt"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is the user and the group of the gateway in the image. It is a number, so that
// Kubernetes can see that it is not root.
const user = 65532

const (
	program = "/usr/bin/drawbridge"
	dataDir = "/var/lib/drawbridge"
)

// A config says how an image is run. Docker defines Healthcheck; other engines
// ignore it.
type config struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       struct {
		User        string
		Env         []string
		Entrypoint  []string
		Cmd         []string
		Volumes     map[string]struct{}
		Labels      map[string]string
		StopSignal  string
		Healthcheck struct {
			Test                           []string
			Interval, Timeout, StartPeriod time.Duration // in nanoseconds
			Retries                        int
		}
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

// image adds the image for an architecture to l.
func (r *release) image(l *layout, arch string, binary []byte) (descriptor, error) {
	c := r.config(arch)
	m := manifest{SchemaVersion: 2, MediaType: mediaTypeManifest}
	add := func(what string, t time.Time, entries ...entry) error {
		text, err := archive(t, entries...)
		if err != nil {
			return err
		}
		var compressed bytes.Buffer
		z := gzip.NewWriter(&compressed)
		if _, err := z.Write(text); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest(text))
		c.History = append(c.History, history{r.time, what})
		m.Layers = append(m.Layers, l.add(mediaTypeLayer, compressed.Bytes()))
		return nil
	}
	// The first layer is the same in every version, unless the authorities change.
	err := add("directories and certificate authorities", time.Unix(0, 0),
		entry{name: "etc", mode: 0o755},
		entry{name: "etc/drawbridge", mode: 0o755},
		entry{name: "etc/ssl", mode: 0o755},
		entry{name: "etc/ssl/certs", mode: 0o755},
		entry{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: systemRoots()},
		entry{name: "usr", mode: 0o755},
		entry{name: "usr/bin", mode: 0o755},
		entry{name: "var", mode: 0o755},
		entry{name: "var/lib", mode: 0o755},
		// It holds private keys: the program refuses a wider mode.
		entry{name: dataDir[1:], mode: 0o700, owner: user},
	)
	if err != nil {
		return descriptor{}, err
	}
	if err := add("drawbridge "+r.version, r.time, entry{name: program[1:], mode: 0o755, content: binary}); err != nil {
		return descriptor{}, err
	}
	if m.Config, err = l.addJSON(mediaTypeConfig, c); err != nil {
		return descriptor{}, err
	}
	d, err := l.addJSON(mediaTypeManifest, m)
	d.Platform = &platform{arch, "linux"}
	return d, err
}

// config says how the image for an architecture is run.
func (r *release) config(arch string) config {
	c := config{Created: r.time, Architecture: arch, OS: "linux"}
	c.RootFS.Type = "layers"
	c.Config.User = fmt.Sprintf("%d:%d", user, user)
	c.Config.Env = []string{"PATH=/usr/bin", "DRAWBRIDGE_DATA_DIR=" + dataDir, "DRAWBRIDGE_ADMIN=unix:" + dataDir + "/admin.sock"}
	c.Config.Entrypoint = []string{program}
	c.Config.Cmd = []string{"serve"}
	c.Config.Volumes = map[string]struct{}{dataDir: {}}
	c.Config.StopSignal = "SIGTERM"
	h := &c.Config.Healthcheck
	h.Test = []string{"CMD", program, "status", "--ready"}
	h.Interval, h.Timeout, h.StartPeriod, h.Retries = 10*time.Second, 5*time.Second, 30*time.Second, 3
	c.Config.Labels = map[string]string{
		"org.opencontainers.image.title":       "drawbridge",
		"org.opencontainers.image.description": "TLS bridging gateway that is configured at run time",
		"org.opencontainers.image.source":      "https://github.com/drawbridge-gateway/drawbridge",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     r.version,
		"org.opencontainers.image.revision":    r.commit,
		"org.opencontainers.image.created":     r.time.Format(time.RFC3339),
	}
	return c
}

// systemRoots returns the certificate authorities of Mozilla as PEM. It leaves out
// authorities that are trusted only under a condition, because PEM cannot express the
// condition.
func systemRoots() []byte {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a Buffer accepts every write
		}
	}
	return text.Bytes()
}
