package socket

import "golang.org/x/sys/unix"

func delivered(fd int) (progress uint64, waiting int) {
	waiting, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0, 0
	}
	if info, ok := tcpInfo(fd); ok {
		return info.Bytes_acked, waiting
	}
	return uint64(waiting), waiting // a unix-domain socket
}
