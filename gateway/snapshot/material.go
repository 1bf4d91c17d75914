package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A certificate is a Certificate resource and what became of it.
type certificate struct {
	msg    *adminv1.Certificate
	live   *certs.Certificate // nil while down
	digest [sha256.Size]byte  // of what was parsed
	down   string
	notes  notes
}

func (j *job) certificate(msg *adminv1.Certificate) *certificate {
	s := j.scope(msg)
	prev := j.prev.certificates[msg.GetName()]
	next := &certificate{msg: msg}
	reusable := prev != nil && prev.live != nil && sameInputs(prev.msg, msg)
	if reusable && (msg.GetFiles() == nil || !s.written()) {
		next.live, next.digest, next.notes = prev.live, prev.digest, prev.notes
		s.reuse(next.notes)
		s.close()
		return next
	}

	var chain, key []byte
	var chainAt, keyAt invalid.Path
	switch src := msg.GetSource().(type) {
	case *adminv1.Certificate_Pem:
		chain, key = []byte(src.Pem.GetCertificateChain()), []byte(src.Pem.GetPrivateKey())
		chainAt, keyAt = "pem.certificate_chain", "pem.private_key"
	case *adminv1.Certificate_Files:
		chainAt, keyAt = "files.certificate_path", "files.private_key_path"
		chain = s.readFile(chainAt, src.Files.GetCertificatePath())
		key = s.readFile(keyAt, src.Files.GetPrivateKeyPath())
	default:
		s.Add("pem", "pem or files must be set")
	}
	if s.Len() == 0 {
		next.digest = digest(chain, key)
		if reusable && next.digest == prev.digest {
			next.live = prev.live // the files were read again and are the same
		} else if live, err := certs.ParseCertificate(chain, key); err != nil {
			s.addCertificateFaults(chainAt, keyAt, err)
		} else {
			next.live = live
			for _, w := range live.Info().Warnings {
				s.Warn(chainAt, "%s", w)
			}
		}
		if next.live != nil && reusable && next.live == prev.live {
			s.reuse(prev.notes)
		}
	}
	next.notes = s.notes()
	next.down = s.close()
	return next
}

// addCertificateFaults says faults at the fields that the parts came from.
func (s *scope) addCertificateFaults(chainAt, keyAt invalid.Path, err error) {
	var faults certs.Faults
	if !errors.As(err, &faults) {
		s.Add(chainAt, "%v", err)
		return
	}
	for _, f := range faults {
		if f.Field == "private_key" {
			s.Add(keyAt, "%s", f.Problem)
		} else {
			s.Add(chainAt, "%s", f.Problem)
		}
	}
}

// A bundle is a TrustBundle resource and what became of it.
type bundle struct {
	msg   *adminv1.TrustBundle
	trust *certs.TrustBundle // nil while down
	down  string
	notes notes
}

func (j *job) bundle(msg *adminv1.TrustBundle) *bundle {
	s := j.scope(msg)
	prev := j.prev.bundles[msg.GetName()]
	next := &bundle{msg: msg}
	reusable := prev != nil && prev.trust != nil && sameInputs(prev.msg, msg)
	_, inline := msg.GetSource().(*adminv1.TrustBundle_Pem)
	if reusable && (inline || !s.written()) {
		next.trust, next.notes = prev.trust, prev.notes
		s.reuse(next.notes)
		s.close()
		return next
	}

	var trust *certs.TrustBundle
	var err error
	switch src := msg.GetSource().(type) {
	case *adminv1.TrustBundle_Pem:
		if trust, err = certs.ParseTrustBundle([]byte(src.Pem)); err != nil {
			s.addFaults("pem", err)
		}
	case *adminv1.TrustBundle_File:
		if content := s.readFile("file", src.File); s.Len() == 0 {
			if trust, err = certs.ParseTrustBundle(content); err != nil {
				s.addFaults("file", err)
			}
		}
	case *adminv1.TrustBundle_System:
		if trust, err = certs.SystemTrustBundle(); err != nil {
			s.addFaults("system", err)
		}
	default:
		s.Add("pem", "pem, file or system must be set")
	}
	if err == nil && trust != nil {
		next.trust = trust
		if reusable && prev.trust.Equal(trust) {
			next.trust = prev.trust
		}
	}
	next.notes = s.notes()
	next.down = s.close()
	return next
}

// maxFile is the most that is read of a file of certificates.
const maxFile = 16 << 20

// readFile returns the content of a file. What is wrong is said of the field p,
// in words that tell nothing of the content.
func (s *scope) readFile(p invalid.Path, path string) []byte {
	if path == "" {
		s.Add(p, "must be set")
		return nil
	}
	if !filepath.IsAbs(path) {
		s.Add(p, "is %q; it must be an absolute path on the gateway's machine", path)
		return nil
	}
	content, err := readRegular(path)
	if err != nil {
		s.Add(p, "%s cannot be read: %v", path, err)
	}
	return content
}

func readRegular(path string) ([]byte, error) {
	// Without O_NONBLOCK, opening a FIFO would wait for its writer, and every
	// later write to the gateway with it.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, cause(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return content, nil
}

// cause strips the operation and path, which the message has already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func digest(parts ...[]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		h.Write(p)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
