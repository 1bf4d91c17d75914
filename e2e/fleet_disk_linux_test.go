// The disk of etcd's leader is full: that member stops, and the fleet works with the others. When
// there is room again, the member starts with what it has.

package e2e

import (
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAFleetWorksWhileTheDiskOfOneMemberIsFull(t *testing.T) {
	t.Parallel()
	disk := newNamespace(t, "mount")
	f := startFleet(t, 3, "a", "b")
	defer f.stop()
	w := newFleetWriter("a", largeRoutes)
	write := func() error { return w.write(f, f.nodes[0], f.nodes[0].g.admin) }
	acknowledged := func() bool { return write() == nil }
	eventually(t, "a write with three members", acknowledged)

	// The leader moves to a disk of its own, and leads again.
	full := f.etcd.leader(f)
	f.etcd.members[full].kill()
	dir := filepath.Join(f.etcd.dir, f.etcd.name(full))
	small := dir + "-small"
	disk.run("mkdir", small)
	disk.run("mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", small)
	disk.run("cp", "-a", dir+"/.", small)
	disk.run("mount", "--bind", small, dir)
	f.etcd.through[full] = disk.through("env", "-C", f.etcd.dir)
	f.etcd.start(t, full)
	f.etcd.lead(t, f.etcd.name(full))
	eventually(t, "a write on the small disk", acknowledged)

	disk.run("sh", "-c", "cat /dev/zero > "+filepath.Join(small, "fill")+" || true")
	member := f.etcd.members[full]
	for !member.done() { // it has allocated some of its file in advance
		switch err := write(); status.Code(err) {
		case codes.OK, codes.Aborted, codes.Unavailable:
		default:
			t.Fatal(err)
		}
		if w.next > 2000 {
			t.Fatal("the member works without room on its disk")
		}
	}
	for range 3 {
		eventually(t, "a write with two members", acknowledged)
	}
	f.converges()

	disk.run("rm", filepath.Join(small, "fill"))
	f.etcd.start(t, full)
	f.etcd.lead(t, f.etcd.name(full))
	eventually(t, "a write when there is room again", acknowledged)
	f.converges()
	inForce := w.check(f, f.state())
	held := f.movesOn()
	f.stop()
	committed, refused, unknown, _ := w.count()
	t.Logf("%d writes acknowledged, none lost; %d refused, none in force; %d may take effect, %d did; %d revisions; %s; %d open at the end",
		committed, refused, unknown, inForce, f.checkServed(), f.summary(), held)
}
