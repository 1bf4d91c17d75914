// Talks to an echo server: node client.cjs URL [CA]. It exits with 0 if every
// message came back as it was sent, in order.
const assert = require('node:assert');
const crypto = require('node:crypto');
const fs = require('node:fs');
const WebSocket = require('ws');

const [url, ca] = process.argv.slice(2);
const options = ca ? { ca: fs.readFileSync(ca), servername: 'backend.example.com', perMessageDeflate: true } : {};
const ws = new WebSocket(url, ['other', 'echo'], options);

// Texts and binary, of nothing to several frames, and two at once.
const messages = ['', 'hello', 'ü'.repeat(1000), crypto.randomBytes(1), crypto.randomBytes(70_000), crypto.randomBytes(4 << 20)];
for (let i = 0; i < 200; i++) messages.push(`message ${i}`);

let got = 0;
let ponged = false;
ws.on('open', () => {
  assert.strictEqual(ws.protocol, 'echo');
  ws.ping('are you there?');
  for (const m of messages) ws.send(m);
});
ws.on('pong', (data) => {
  assert.strictEqual(data.toString(), 'are you there?');
  ponged = true;
});
ws.on('message', (data, isBinary) => {
  const want = messages[got++];
  assert.strictEqual(isBinary, typeof want !== 'string');
  assert.ok(data.equals(Buffer.from(want)), `message ${got - 1} came back as another`);
  if (got === messages.length) ws.close(4321, 'enough');
});
ws.on('close', (code, reason) => {
  assert.strictEqual(`${code} ${reason}`, '4321 enough');
  assert.ok(ponged, 'no pong came');
  console.log(`${got} messages came back`);
});
