// Echoes WebSocket messages over mutual TLS: node server.cjs CERT KEY CA. It
// prints its port when it listens, and what each connection ended with.
const fs = require('node:fs');
const https = require('node:https');
const { WebSocketServer } = require('ws');

const [cert, key, ca] = process.argv.slice(2).map((path) => fs.readFileSync(path));
const server = https.createServer({ cert, key, ca, requestCert: true, rejectUnauthorized: true });
const sockets = new WebSocketServer({
  server,
  handleProtocols: (offered) => (offered.has('echo') ? 'echo' : false),
  maxPayload: 16 << 20,
});
sockets.on('connection', (ws) => {
  ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary }));
  ws.on('close', (code, reason) => console.log(`closed ${code} ${reason}`));
  ws.on('error', (err) => console.log(`error ${err.message}`));
});
server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
