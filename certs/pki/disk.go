package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	rootName         = "ca"
	intermediateName = "intermediate"
	certSuffix       = ".pem"
	keySuffix        = "-key.pem"
)

// Init makes a root and, if intermediate is not nil, an intermediate below it.
// It saves them in dir and returns the issuing CA: the intermediate if there is
// one, or else the root. It fails if dir already holds a CA.
func Init(dir string, root CAOptions, intermediate *CAOptions) (*CA, error) {
	ca, err := NewRoot(root)
	if err != nil {
		return nil, err
	}
	if intermediate != nil {
		if ca, err = ca.NewIntermediate(*intermediate); err != nil {
			return nil, err
		}
	}
	if err := ca.Save(dir); err != nil {
		return nil, err
	}
	return ca, nil
}

// Save writes ca, and the root above it, to dir, which it creates with mode
// 0700 if needed. It overwrites nothing: if dir already holds a CA, the error
// wraps fs.ErrExist and dir is unchanged. Only a root and an intermediate
// directly below a root can be saved.
func (ca *CA) Save(dir string) error {
	root := ca.Root()
	files, err := ca.files(rootName, intermediateName)
	if err != nil {
		return err
	}
	if ca.parent != nil && ca.parent != root {
		return errors.New("only a root and one intermediate below it can be saved")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Load would mistake a leftover intermediate.pem for the new root's
	// intermediate.
	for _, name := range []string{rootName, intermediateName} {
		for _, suffix := range []string{certSuffix, keySuffix} {
			if path := filepath.Join(dir, name+suffix); exists(path) {
				return fmt.Errorf("%s: %w", path, fs.ErrExist)
			}
		}
	}
	return writeNew(dir, files)
}

// files returns the files that hold ca and its root.
func (ca *CA) files(root, intermediate string) ([]file, error) {
	name := root
	var files []file
	if ca.parent != nil {
		var err error
		if files, err = ca.Root().files(root, intermediate); err != nil {
			return nil, err
		}
		name = intermediate
	}
	if ca.key != nil {
		key, err := encodeKey(ca.key)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name + keySuffix, key, 0o600})
	}
	return append(files, file{name + certSuffix, ca.CertPEM(), 0o644}), nil
}

// Load reads the CA saved in dir and returns the issuing CA: the intermediate
// if there is one, or else the root. The key of a root above an intermediate
// may be missing, so that it can be kept elsewhere.
func Load(dir string) (*CA, error) {
	root, err := loadCA(dir, rootName, nil)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s holds no CA; `drawbridge pki init` makes one: %w", dir, err)
		}
		return nil, err
	}
	ca := root
	if exists(filepath.Join(dir, intermediateName+certSuffix)) {
		if ca, err = loadCA(dir, intermediateName, root); err != nil {
			return nil, err
		}
	}
	if ca.key == nil {
		return nil, fmt.Errorf("%s is missing: without it no certificate can be issued", filepath.Join(dir, rootName+keySuffix))
	}
	return ca, nil
}

func loadCA(dir, name string, parent *CA) (*CA, error) {
	path := filepath.Join(dir, name+certSuffix)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	chain, err := decodeCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	cert := chain[0]
	if !cert.IsCA {
		return nil, fmt.Errorf("%s: not a CA certificate", path)
	}
	issuer := cert
	if parent != nil {
		issuer = parent.cert
	}
	if err := cert.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("%s: not signed by %q: %w", path, issuer.Subject.CommonName, err)
	}
	ca := &CA{cert: cert, parent: parent}

	keyPath := filepath.Join(dir, name+keySuffix)
	keyText, err := os.ReadFile(keyPath)
	if errors.Is(err, fs.ErrNotExist) && parent == nil {
		return ca, nil
	}
	if err != nil {
		return nil, err
	}
	key, err := decodeKey(keyText)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyPath, err)
	}
	if public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("%s: not the key of %s", keyPath, path)
	}
	ca.key = key
	return ca, nil
}

// entryName matches valid certificate names on disk: plain file names.
var entryName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,99}$`)

// An Entry is a certificate in a CA's directory.
type Entry struct {
	// Name is the file's name without ".pem": "ca", "intermediate", or the name
	// that IssueTo was given.
	Name string
	// CertPath and KeyPath are the paths of the files. KeyPath is empty if the key
	// is not in the directory.
	CertPath, KeyPath string
	// Chain is the certificate and, for a leaf, its intermediates.
	Chain []*x509.Certificate
}

// IssueTo issues a certificate and writes it to dir as NAME.pem and
// NAME-key.pem. It overwrites nothing: if either exists, the error wraps
// fs.ErrExist and IssueTo writes no file.
func (ca *CA) IssueTo(dir, name string, o LeafOptions) (*Entry, error) {
	if !entryName.MatchString(name) || name == rootName || name == intermediateName ||
		strings.HasSuffix(name, "-key") || strings.HasSuffix(name, certSuffix) {
		return nil, fmt.Errorf("%q cannot name a certificate: want letters, digits, '.', '_', '@' or '-', and not %q, %q, or a name that ends in %q or %q",
			name, rootName, intermediateName, "-key", certSuffix)
	}
	e := &Entry{
		Name:     name,
		CertPath: filepath.Join(dir, name+certSuffix),
		KeyPath:  filepath.Join(dir, name+keySuffix),
	}
	for _, path := range []string{e.CertPath, e.KeyPath} {
		if exists(path) { // check before making a key, which is slow
			return nil, fmt.Errorf("%s: %w", path, fs.ErrExist)
		}
	}
	issued, err := ca.Issue(o)
	if err != nil {
		return nil, err
	}
	e.Chain = append([]*x509.Certificate{issued.Leaf}, ca.intermediates()...)
	return e, writeNew(dir, []file{
		{name + keySuffix, issued.KeyPEM, 0o600},
		{name + certSuffix, issued.ChainPEM, 0o644},
	})
}

// List returns the certificates in a CA's directory: the root, the
// intermediate, then the others by name.
func List(dir string) ([]Entry, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, f := range names {
		name, ok := strings.CutSuffix(f.Name(), certSuffix)
		if !ok || strings.HasSuffix(f.Name(), keySuffix) || !f.Type().IsRegular() {
			continue
		}
		e, err := Show(dir, name)
		if err != nil {
			return nil, err
		}
		entries = append(entries, *e)
	}
	rank := func(e Entry) int { return slices.Index([]string{intermediateName, rootName}, e.Name) }
	slices.SortStableFunc(entries, func(a, b Entry) int { return rank(b) - rank(a) })
	return entries, nil
}

// Show returns the certificate called name in a CA's directory.
func Show(dir, name string) (*Entry, error) {
	if !entryName.MatchString(name) {
		return nil, fmt.Errorf("%q is not the name of a certificate", name)
	}
	e := &Entry{Name: name, CertPath: filepath.Join(dir, name+certSuffix)}
	text, err := os.ReadFile(e.CertPath)
	if err != nil {
		return nil, err
	}
	if e.Chain, err = decodeCertificates(text); err != nil {
		return nil, fmt.Errorf("%s: %w", e.CertPath, err)
	}
	if path := filepath.Join(dir, name+keySuffix); exists(path) {
		e.KeyPath = path
	}
	return e, nil
}

func decodeCertificates(text []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, errors.New("holds no certificate in PEM")
	}
	return chain, nil
}

type file struct {
	name string
	text []byte
	mode fs.FileMode
}

// writeNew writes every file, or no file if one exists or cannot be written.
func writeNew(dir string, files []file) error {
	for i, f := range files {
		path := filepath.Join(dir, f.name)
		err := createNew(path, f.text, f.mode)
		if err == nil {
			continue
		}
		for _, made := range files[:i] {
			os.Remove(filepath.Join(dir, made.name))
		}
		return err
	}
	return nil
}

// createNew writes a new file and removes it if writing fails.
func createNew(path string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
