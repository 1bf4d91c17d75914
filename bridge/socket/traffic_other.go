//go:build !linux

package socket

// DescriptorTraffic returns no traffic: the system does not count it.
func DescriptorTraffic(int) (t Traffic, ok bool) { return Traffic{}, false }
