package probe

import (
	"crypto/tls"
	"fmt"
	"slices"
)

// A codePoint is a TLS parameter that crypto/tls does not support, with its name
// in the IANA registry.
type codePoint struct {
	id   uint16
	name string
}

// otherSuites are cipher suites that servers may be restricted to.
var otherSuites = []codePoint{
	{0x1304, "TLS_AES_128_CCM_SHA256"}, {0x1305, "TLS_AES_128_CCM_8_SHA256"},
	{0x009e, "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"}, {0x009f, "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"},
	{0xccaa, "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256"},
	{0x0033, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA"}, {0x0039, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA"},
	{0x0067, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256"}, {0x006b, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256"},
	{0x0016, "TLS_DHE_RSA_WITH_3DES_EDE_CBC_SHA"}, {0xc09e, "TLS_DHE_RSA_WITH_AES_128_CCM"}, {0xc09f, "TLS_DHE_RSA_WITH_AES_256_CCM"},
	{0x00a2, "TLS_DHE_DSS_WITH_AES_128_GCM_SHA256"}, {0x00a3, "TLS_DHE_DSS_WITH_AES_256_GCM_SHA384"},
	{0x0032, "TLS_DHE_DSS_WITH_AES_128_CBC_SHA"}, {0x0038, "TLS_DHE_DSS_WITH_AES_256_CBC_SHA"},
	{0xc024, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384"}, {0xc028, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"},
	{0xc0ac, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM"}, {0xc0ad, "TLS_ECDHE_ECDSA_WITH_AES_256_CCM"},
	{0xc0ae, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8"}, {0xc0af, "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8"},
	{0x003d, "TLS_RSA_WITH_AES_256_CBC_SHA256"}, {0xc09c, "TLS_RSA_WITH_AES_128_CCM"}, {0xc09d, "TLS_RSA_WITH_AES_256_CCM"},
	{0x0041, "TLS_RSA_WITH_CAMELLIA_128_CBC_SHA"}, {0x0084, "TLS_RSA_WITH_CAMELLIA_256_CBC_SHA"},
	{0x0045, "TLS_DHE_RSA_WITH_CAMELLIA_128_CBC_SHA"}, {0x0088, "TLS_DHE_RSA_WITH_CAMELLIA_256_CBC_SHA"},
	{0xc072, "TLS_ECDHE_ECDSA_WITH_CAMELLIA_128_CBC_SHA256"}, {0xc073, "TLS_ECDHE_ECDSA_WITH_CAMELLIA_256_CBC_SHA384"},
	{0xc076, "TLS_ECDHE_RSA_WITH_CAMELLIA_128_CBC_SHA256"}, {0xc077, "TLS_ECDHE_RSA_WITH_CAMELLIA_256_CBC_SHA384"},
	{0xc050, "TLS_RSA_WITH_ARIA_128_GCM_SHA256"}, {0xc051, "TLS_RSA_WITH_ARIA_256_GCM_SHA384"},
	{0xc052, "TLS_DHE_RSA_WITH_ARIA_128_GCM_SHA256"}, {0xc053, "TLS_DHE_RSA_WITH_ARIA_256_GCM_SHA384"},
	{0xc05c, "TLS_ECDHE_ECDSA_WITH_ARIA_128_GCM_SHA256"}, {0xc05d, "TLS_ECDHE_ECDSA_WITH_ARIA_256_GCM_SHA384"},
	{0xc060, "TLS_ECDHE_RSA_WITH_ARIA_128_GCM_SHA256"}, {0xc061, "TLS_ECDHE_RSA_WITH_ARIA_256_GCM_SHA384"},
	{0x0034, "TLS_DH_anon_WITH_AES_128_CBC_SHA"}, {0x003a, "TLS_DH_anon_WITH_AES_256_CBC_SHA"},
	{0x00a6, "TLS_DH_anon_WITH_AES_128_GCM_SHA256"}, {0x00a7, "TLS_DH_anon_WITH_AES_256_GCM_SHA384"},
	{0xc018, "TLS_ECDH_anon_WITH_AES_128_CBC_SHA"}, {0xc019, "TLS_ECDH_anon_WITH_AES_256_CBC_SHA"},
	{0x00a8, "TLS_PSK_WITH_AES_128_GCM_SHA256"}, {0x00a9, "TLS_PSK_WITH_AES_256_GCM_SHA384"},
	{0x008c, "TLS_PSK_WITH_AES_128_CBC_SHA"}, {0x008d, "TLS_PSK_WITH_AES_256_CBC_SHA"},
	{0xc035, "TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA"}, {0xc036, "TLS_ECDHE_PSK_WITH_AES_256_CBC_SHA"},
	{0xccac, "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256"},
}

// otherGroups are key-exchange groups, and curves of keys under TLS 1.2.
var otherGroups = []codePoint{
	{30, "X448"}, {21, "P-224"}, {22, "secp256k1"}, {26, "brainpoolP256r1"}, {27, "brainpoolP384r1"}, {28, "brainpoolP512r1"},
	{31, "brainpoolP256r1tls13"}, {32, "brainpoolP384r1tls13"}, {33, "brainpoolP512r1tls13"}, {41, "curveSM2"},
	{256, "ffdhe2048"}, {257, "ffdhe3072"}, {258, "ffdhe4096"}, {259, "ffdhe6144"}, {260, "ffdhe8192"},
	{512, "MLKEM512"}, {513, "MLKEM768"}, {514, "MLKEM1024"},
}

// A scheme is a kind of signature, with its code points.
type scheme struct {
	name string
	ids  []uint16
}

// otherSchemes are the signatures that crypto/tls does not offer, by kind of
// key.
var otherSchemes = []scheme{
	{"an Ed448 key", []uint16{0x0808}},
	{"an RSA-PSS key", []uint16{0x0809, 0x080a, 0x080b}},
	{"an ECDSA key on a brainpool curve", []uint16{0x081a, 0x081b, 0x081c}},
	{"SHA-1", []uint16{0x0201, 0x0203, 0x0202}},
	{"SHA-224", []uint16{0x0301, 0x0303}},
	{"an SM2 key", []uint16{0x0708}},
	{"an ML-DSA key", []uint16{0x0904, 0x0905, 0x0906}},
	{"a DSA key", []uint16{0x0402, 0x0502, 0x0602}},
}

func idsOf(points []codePoint) []uint16 {
	var ids []uint16
	for _, p := range points {
		ids = append(ids, p.id)
	}
	return ids
}

// nameOf returns the name of a code point, or its number.
func nameOf(points []codePoint, id uint16) string {
	if i := slices.IndexFunc(points, func(p codePoint) bool { return p.id == id }); i >= 0 {
		return points[i].name
	}
	return fmt.Sprintf("0x%04x", id)
}

// everySuite returns all cipher suites of crypto/tls.
func everySuite() []uint16 {
	var ids []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		ids = append(ids, s.ID)
	}
	return ids
}
