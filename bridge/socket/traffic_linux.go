package socket

import "time"

// DescriptorTraffic returns the traffic of a TCP connection.
func DescriptorTraffic(fd int) (t Traffic, ok bool) {
	info, ok := tcpInfo(fd)
	if !ok {
		return Traffic{}, false
	}
	return Traffic{
		Received: info.Bytes_received,
		Sent:     info.Bytes_sent - min(info.Bytes_retrans, info.Bytes_sent),
		Idle:     time.Duration(min(info.Last_data_recv, info.Last_data_sent)) * time.Millisecond,
	}, true
}
