package manifest

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Every field with a key or passphrase is marked debug_redact, so debugging
// output of clients omits it.
func TestKeysAndPassphrasesAreMarked(t *testing.T) {
	var marked []string
	for _, file := range []protoreflect.FileDescriptor{adminv1.File_drawbridge_admin_v1_certificate_proto, adminv1.File_drawbridge_admin_v1_upstream_proto} {
		messages := file.Messages()
		for i := range messages.Len() {
			fields := messages.Get(i).Fields()
			for j := range fields.Len() {
				if isSecret(fields.Get(j)) {
					marked = append(marked, string(fields.Get(j).FullName()[len("drawbridge.admin.v1."):]))
				}
			}
		}
	}
	want := []string{"CertificatePem.private_key", "CertificatePem.passphrase", "CertificatePkcs12.data", "CertificatePkcs12.passphrase", "ProxyCredentials.password"}
	if !slices.Equal(marked, want) {
		t.Errorf("marked: %q, want %q", marked, want)
	}
	var none protoreflect.FieldDescriptor = (&adminv1.Certificate{}).ProtoReflect().Descriptor().Fields().ByName("name")
	if isSecret(none) {
		t.Error("a name is a secret")
	}
}
