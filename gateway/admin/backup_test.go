package admin

import (
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// readBackup returns the bytes of a backup and the error of the call.
func readBackup(t *testing.T, r *running) (string, error) {
	t.Helper()
	stream, err := r.admin.Backup(t.Context(), &adminv1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for {
		part, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return all.String(), err
		}
		if n := len(part.GetData()); n == 0 || n > chunkBytes {
			t.Errorf("a part of %d bytes", n)
		}
		all.Write(part.GetData())
	}
}

func TestABackupIsStreamedInParts(t *testing.T) {
	r := start(t)
	if got, err := readBackup(t, r); err != nil || got != strings.Repeat("backup", chunkBytes) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	r.gateway.refusal = invalid.Errorf(invalid.Unavailable, "", "the disk is full")
	_, err := readBackup(t, r)
	wantCode(t, err, codes.Unavailable)
}
