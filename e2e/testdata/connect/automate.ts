// Rotates a certificate and follows the configuration, as automation does.
//
// node automate.js SOCKET CHAIN KEY
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { clone, create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { AdminService, type WatchConfigResponse } from "./drawbridge/admin/v1/admin_service_pb.js";
import { CertificateSchema } from "./drawbridge/admin/v1/certificate_pb.js";
import { ChangeAction } from "./drawbridge/admin/v1/config_pb.js";
import { EndpointHealth, EventType, StatusService } from "./drawbridge/admin/v1/status_service_pb.js";
import { PoolSchema, UpstreamSchema } from "./drawbridge/admin/v1/upstream_pb.js";

type Admin = Client<typeof AdminService>;
type Position = { instanceId: string; revision: bigint };

// Calls again while the connection is lost. A write may have been carried out
// although its answer was lost: asked for again it changes nothing.
async function retried<T>(call: () => Promise<T>): Promise<T> {
  for (let tries = 0; tries < 50; tries++) {
    try {
      return await call();
    } catch (e) {
      // A connection that breaks off is one of these, depending on when it does. The
      // gateway's own errors have details; a lost connection has none.
      const { code, details } = ConnectError.from(e);
      if (![Code.Unavailable, Code.Aborted, Code.Canceled, Code.Internal].includes(code) || details.length > 0) throw e;
      console.log("retry:", String(e));
      await pause(50);
    }
  }
  throw new Error("the gateway does not answer");
}

async function rotate(admin: Admin, chain: string, key: string) {
  const current = await retried(() => admin.getCertificate({ name: "client" }));
  const certificate = create(CertificateSchema, {
    name: "client",
    etag: current.etag, // refused if another caller has changed it since
    source: { case: "pem", value: { certificateChain: chain, privateKey: key } },
  });
  const checked = await retried(() => admin.putCertificate({ certificate, options: { dryRun: true } }));
  console.log("dry run:", ChangeAction[checked.change!.changes[0].action]);
  const done = await retried(() => admin.putCertificate({ certificate, options: { comment: "rotated by automation" } }));
  console.log("rotated:", ChangeAction[done.change!.changes[0].action], done.certificate!.info!.sha256Fingerprint);
}

// The etag loop: read, change, write, and begin again if it has changed.
async function changeLabels(admin: Admin) {
  for (let stale = "0000000000000000"; ; stale = "") {
    const upstream = clone(UpstreamSchema, await retried(() => admin.getUpstream({ name: "web" })));
    upstream.labels["owner"] = "typescript";
    if (stale) upstream.etag = stale;
    try {
      await retried(() => admin.putUpstream({ upstream }));
      return;
    } catch (e) {
      if (ConnectError.from(e).code !== Code.Aborted) throw e;
      console.log("changed by another, once more");
    }
  }
}

async function createOnly(admin: Admin) {
  const upstream = create(UpstreamSchema, { name: "created", endpoints: [{ address: "127.0.0.1:1" }] });
  const options = { createOnly: true };
  for (let i = 0; i < 2; i++) {
    const answer = await retried(() => admin.putUpstream({ upstream, options }));
    console.log("create only:", ChangeAction[answer.change!.changes[0].action]);
  }
  const other = clone(UpstreamSchema, upstream);
  other.pool = create(PoolSchema, { maxIdle: 0 }); // optional: 0 is not "left out"
  try {
    await admin.putUpstream({ upstream: other, options });
  } catch (e) {
    console.log("create only:", Code[ConnectError.from(e).code]);
  }
}

// Returns the messages up to one with synced, and the position after it.
async function watch(admin: Admin, from: Partial<Position>): Promise<[WatchConfigResponse[], Position]> {
  const seen: WatchConfigResponse[] = [];
  for await (const message of admin.watchConfig(from)) {
    seen.push(message);
    if (message.synced) return [seen, { instanceId: message.instanceId, revision: message.revision }];
  }
  throw new Error("the watch ended");
}

// Returns once an endpoint of an upstream is healthy.
async function waitHealthy(status: Client<typeof StatusService>, upstream: string) {
  for await (const event of status.watchEvents({ afterSequence: 0n, types: [EventType.ENDPOINT_HEALTH], names: [upstream] })) {
    if (event.health === EndpointHealth.UP) return;
  }
  throw new Error("the watch ended");
}

const [socket, chain, key] = process.argv.slice(2);
const transport = createGrpcTransport({
  baseUrl: "http://localhost",
  nodeOptions: { createConnection: () => connect(socket) },
});
const admin = createClient(AdminService, transport);
const status = createClient(StatusService, transport);

await rotate(admin, readFileSync(chain, "utf8"), readFileSync(key, "utf8"));
await createOnly(admin);
await waitHealthy(status, "web");
console.log("healthy");

const [state, position] = await watch(admin, {});
console.log("state:", state[0].reset, state.reduce((n, m) => n + m.resources.length, 0));
await changeLabels(admin);
const [missed, last] = await watch(admin, position);
console.log("resumed:", missed[0].reset, missed.flatMap((m) => m.changes).map((c) => c.name));

for await (const event of status.watchEvents({ afterSequence: 0n, types: [EventType.APPLIED] })) {
  if (event.revision === last.revision) {
    console.log("event of the last revision:", event.sequence > 0n);
    break;
  }
}
console.log("done");
process.exit(0);
