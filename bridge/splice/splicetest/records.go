package splicetest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// A Secrets is a KeyLogWriter that keeps the last secret of each label.
type Secrets struct {
	mu sync.Mutex
	by map[string][]byte
}

func (s *Secrets) Write(line []byte) (int, error) {
	f := strings.Fields(string(line))
	secret, err := hex.DecodeString(f[2])
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = make(map[string][]byte)
	}
	s.by[f[0]] = secret
	return len(line), nil
}

// traffic returns the first application traffic secret.
func (s *Secrets) traffic(isClient bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if isClient {
		return s.by["CLIENT_TRAFFIC_SECRET_0"]
	}
	return s.by["SERVER_TRAFFIC_SECRET_0"]
}

// A recordLayer is a TLS 1.3 record layer that does what crypto/tls never does. It lies
// below a tls.Conn, opens each record that it sends, and seals the content again: in
// records of other sizes, padded, and under keys that it updates (RFC 8446, 5.2, 5.4
// and 7.2).
type recordLayer struct {
	mu   sync.Mutex
	conn net.Conn
	rng  *rand.Rand
	most int // maximum bytes in one record
	pad  int // maximum padding in one record

	in, out protection
	synced  bool // in has the tls.Conn's sequence number
	updates []byte
}

// A protection is the state of one direction's record protection.
type protection struct {
	suite  suite
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// A suite is a TLS 1.3 cipher suite.
type suite struct {
	hash func() hash.Hash
	key  int
	aead func(key []byte) (cipher.AEAD, error)
}

var suites = map[uint16]suite{
	tls.TLS_AES_128_GCM_SHA256:       {sha256.New, 16, gcm},
	tls.TLS_AES_256_GCM_SHA384:       {sha512.New384, 32, gcm},
	tls.TLS_CHACHA20_POLY1305_SHA256: {sha256.New, 32, chacha20poly1305.New},
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Reseal puts a recordLayer below p, whose handshake is complete. It does nothing to
// a peer without TLS 1.3.
func (p *Peer) Reseal(t testing.TB, s *Secrets, isClient bool, rng *rand.Rand, most, pad int) {
	tc, ok := p.Conn.(*tls.Conn)
	if !ok || tc.ConnectionState().Version != tls.VersionTLS13 {
		return
	}
	r := &recordLayer{conn: p.Raw.Conn, rng: rng, most: most, pad: pad}
	for _, x := range []*protection{&r.in, &r.out} {
		x.suite = suites[tc.ConnectionState().CipherSuite]
		if err := x.use(s.traffic(isClient)); err != nil {
			t.Fatal(err)
		}
	}
	p.Raw.records.Store(r)
}

// use derives the keys of a traffic secret.
func (p *protection) use(secret []byte) error {
	p.secret, p.seq = secret, 0
	key, err := p.expand("key", p.suite.key)
	if err != nil {
		return err
	}
	if p.iv, err = p.expand("iv", 12); err != nil {
		return err
	}
	p.aead, err = p.suite.aead(key)
	return err
}

// expand is HKDF-Expand-Label with an empty context.
func (p *protection) expand(label string, n int) ([]byte, error) {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len(label)))
	info = append(info, label...)
	return hkdf.Expand(p.suite.hash, p.secret, string(append(info, 0)), n)
}

func (p *protection) update() error {
	next, err := p.expand("traffic upd", len(p.secret))
	if err != nil {
		return err
	}
	return p.use(next)
}

func (p *protection) nonce() []byte {
	nonce := append([]byte(nil), p.iv...)
	for i, b := range binary.BigEndian.AppendUint64(nil, p.seq) {
		nonce[4+i] ^= b
	}
	return nonce
}

// open returns the content and the type of a record.
func (p *protection) open(record []byte) ([]byte, byte, error) {
	inner, err := p.aead.Open(nil, p.nonce(), record[5:], record[:5])
	if err != nil {
		return nil, 0, err
	}
	p.seq++
	for len(inner) > 0 && inner[len(inner)-1] == 0 {
		inner = inner[:len(inner)-1]
	}
	if len(inner) == 0 {
		return nil, 0, errors.New("a record without a type")
	}
	return inner[:len(inner)-1], inner[len(inner)-1], nil
}

// seal appends a record to b.
func (p *protection) seal(b, content []byte, kind byte, padding int) []byte {
	inner := append(append([]byte(nil), content...), kind)
	inner = append(inner, make([]byte, padding)...)
	header := []byte{23, 3, 3}
	header = binary.BigEndian.AppendUint16(header, uint16(len(inner)+p.aead.Overhead()))
	b = p.aead.Seal(append(b, header...), p.nonce(), inner, header)
	p.seq++
	return b
}

// update sends a KeyUpdate before the next record and switches to new keys. If
// requested, it asks the other side to update its keys.
func (r *recordLayer) update(requested bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	request := byte(0)
	if requested {
		request = 1
	}
	r.updates = append(r.updates, request)
}

// Write accepts whole records, as a tls.Conn writes them.
func (r *recordLayer) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var wire []byte
	for rest := p; len(rest) > 0; {
		record := rest[:5+int(binary.BigEndian.Uint16(rest[3:]))]
		rest = rest[len(record):]
		content, kind, err := r.open(record)
		if err != nil {
			return 0, fmt.Errorf("records: %w", err)
		}
		for _, request := range r.updates {
			wire = r.out.seal(wire, []byte{24, 0, 0, 1, request}, 22, 0)
			if err := r.out.update(); err != nil {
				return 0, err
			}
		}
		r.updates = nil
		for len(content) > 0 {
			n := len(content)
			if kind == 23 {
				n = min(n, 1+r.rng.IntN(r.most))
			}
			wire = r.out.seal(wire, content[:n], kind, r.rng.IntN(1+min(r.pad, 1<<14-n)))
			content = content[n:]
		}
	}
	if _, err := r.conn.Write(wire); err != nil {
		return 0, err
	}
	return len(p), nil
}

// open opens a record of the tls.Conn, which may have sent some before the
// recordLayer existed, such as session tickets.
func (r *recordLayer) open(record []byte) ([]byte, byte, error) {
	for !r.synced && r.in.seq < 8 {
		content, kind, err := r.in.open(record)
		if err == nil {
			r.synced, r.out.seq = true, r.in.seq-1
			return content, kind, nil
		}
		r.in.seq++
	}
	return r.in.open(record)
}
