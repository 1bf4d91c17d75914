"""Rotates a certificate and follows the configuration, as automation does.

automate.py SOCKET CHAIN KEY, with the generated modules in PYTHONPATH.
"""

import sys
import time

import grpc

from drawbridge.admin.v1 import admin_service_pb2 as pb
from drawbridge.admin.v1 import admin_service_pb2_grpc
from drawbridge.admin.v1 import certificate_pb2, config_pb2, status_service_pb2, upstream_pb2
from drawbridge.admin.v1 import status_service_pb2_grpc


def retried(call, request):
    """Calls again while the connection is lost. A write may have been carried
    out although its answer was lost: asked for again it changes nothing."""
    for _ in range(50):
        try:
            # wait_for_ready: while the channel reconnects, the call waits
            # instead of failing at once.
            return call(request, timeout=20, wait_for_ready=True)
        except grpc.RpcError as e:
            if e.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            print("retry:", e.details(), flush=True)
            time.sleep(0.05)
    raise SystemExit("the gateway does not answer")


def rotate(admin, chain, key):
    current = retried(admin.GetCertificate, pb.GetCertificateRequest(name="client"))
    desired = certificate_pb2.Certificate(
        name="client",
        etag=current.etag,  # refused if another caller has changed it since
        pem=certificate_pb2.CertificatePem(certificate_chain=chain, private_key=key),
    )
    checked = retried(admin.PutCertificate, pb.PutCertificateRequest(
        certificate=desired, options=config_pb2.WriteOptions(dry_run=True)))
    print("dry run:", config_pb2.ChangeAction.Name(checked.change.changes[0].action))
    done = retried(admin.PutCertificate, pb.PutCertificateRequest(
        certificate=desired, options=config_pb2.WriteOptions(comment="rotated by automation")))
    print("rotated:", config_pb2.ChangeAction.Name(done.change.changes[0].action), done.certificate.info.sha256_fingerprint)


def change_labels(admin):
    """The etag loop: read, change, write, and begin again if it has changed."""
    stale = "0000000000000000"
    while True:
        upstream = retried(admin.GetUpstream, pb.GetUpstreamRequest(name="web"))
        upstream.labels["owner"] = "python"
        if stale:
            upstream.etag, stale = stale, ""
        try:
            retried(admin.PutUpstream, pb.PutUpstreamRequest(upstream=upstream))
            return
        except grpc.RpcError as e:
            if e.code() != grpc.StatusCode.ABORTED:
                raise
            print("changed by another, once more")


def create(admin):
    new = upstream_pb2.Upstream(name="created", endpoints=[upstream_pb2.Endpoint(address="127.0.0.1:1")])
    only = config_pb2.WriteOptions(create_only=True)
    for _ in range(2):
        answer = retried(admin.PutUpstream, pb.PutUpstreamRequest(upstream=new, options=only))
        print("create only:", config_pb2.ChangeAction.Name(answer.change.changes[0].action))
    new.pool.max_idle = 0
    assert new.pool.HasField("max_idle")  # proto3 optional: 0 is not "left out"
    try:
        admin.PutUpstream(pb.PutUpstreamRequest(upstream=new, options=only))
    except grpc.RpcError as e:
        print("create only:", e.code().name)


def watch(admin, position):
    """Returns the messages up to one with synced, and the position after it."""
    stream = admin.WatchConfig(pb.WatchConfigRequest(instance_id=position[0], revision=position[1]))
    seen = []
    for message in stream:
        seen.append(message)
        if message.synced:
            stream.cancel()
            return seen, (message.instance_id, message.revision)
    raise SystemExit("the watch ended")


def wait_healthy(status, upstream):
    """Returns once an endpoint of an upstream is healthy."""
    for event in status.WatchEvents(status_service_pb2.WatchEventsRequest(
            after_sequence=0, types=[status_service_pb2.EVENT_TYPE_ENDPOINT_HEALTH], names=[upstream])):
        if event.health == status_service_pb2.ENDPOINT_HEALTH_UP:
            return
    raise SystemExit("the watch ended")


def main(socket, chain, key):
    channel = grpc.insecure_channel("unix:" + socket, options=[
        ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 500)])
    admin = admin_service_pb2_grpc.AdminServiceStub(channel)
    status = status_service_pb2_grpc.StatusServiceStub(channel)
    with open(chain) as c, open(key) as k:
        rotate(admin, c.read(), k.read())
    create(admin)
    wait_healthy(status, "web")
    print("healthy")

    state, position = watch(admin, ("", 0))
    print("state:", state[0].reset, sum(len(m.resources) for m in state))
    change_labels(admin)
    missed, position = watch(admin, position)
    print("resumed:", missed[0].reset, [c.name for m in missed for c in m.changes])

    for event in status.WatchEvents(status_service_pb2.WatchEventsRequest(
            after_sequence=0, types=[status_service_pb2.EVENT_TYPE_APPLIED])):
        if event.revision == position[1]:
            print("event of the last revision:", event.sequence > 0)
            break
    print("done")


main(*sys.argv[1:])
