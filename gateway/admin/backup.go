package admin

import (
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func (s adminService) Backup(_ *adminv1.BackupRequest, stream grpc.ServerStreamingServer[adminv1.BackupResponse]) error {
	return s.withSendTimeout(stream.Context(), adminv1.AdminService_Backup_FullMethodName, func(timed timedSend) error {
		backup, err := s.gateway.Backup()
		if err != nil {
			return invalid.Errorf(invalid.Unavailable, "", "the store cannot be copied: %v", err)
		}
		defer backup.Close()
		buffer := make([]byte, chunkBytes)
		for {
			n, err := io.ReadFull(backup, buffer)
			if n > 0 {
				if err := timed(func() error { return stream.Send(&adminv1.BackupResponse{Data: buffer[:n]}) }); err != nil {
					return err
				}
			}
			switch {
			case err == nil:
			case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
				return nil
			default:
				return invalid.Errorf(invalid.Unavailable, "", "the copy of the store cannot be read: %v", err)
			}
		}
	})
}
