// Goal: what a client sees when its request is refused by gRPC itself is what etcd (grpc-go) answers. Method: the same raw
// HTTP/2 requests to a real etcd and to this engine with a method of the same name; HTTP status, gRPC status, message and
// encoding are compared. Left out on purpose: a unary request whose HEADERS end the stream, which grpc-go never answers; we
// answer as to an empty body (grpc.test.ts, "broken message framing").

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { type ClientHttp2Session, connect } from 'node:http2';
import { connect as connectTcp, createServer } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { startEchoServer } from '../testing/echo-server.ts';
import { grpcMessage } from '../testing/http2-client.ts';
import type { ServerCall } from './call.ts';
import { Router } from './router.ts';

const cache = process.env['KEELSON_CACHE'] ?? path.join(homedir(), '.cache', 'keelson');
const etcd = path.join(cache, 'bin', 'etcd');
const skip = existsSync(etcd) ? false : `${etcd} is missing: test-e2e/peers/build.sh etcd builds it`;

type Fields = Record<string, string>;

interface Request {
  readonly what: string;
  readonly headers: Fields;
  /** Null ends the request with its headers. */
  readonly body: Buffer | null;
}

const range = {
  ':method': 'POST',
  ':path': '/etcdserverpb.KV/Range',
  'content-type': 'application/grpc',
  te: 'trailers',
};
// RangeRequest{key: "a"}
const message = Buffer.from([0x0a, 1, 0x61]);
const requestBytesMax = 1_572_864 + 512 * 1024;

const requests: readonly Request[] = [
  { what: 'unknown service', headers: { ...range, ':path': '/no.Such/Method' }, body: grpcMessage(message) },
  { what: 'unknown method', headers: { ...range, ':path': '/etcdserverpb.KV/None' }, body: grpcMessage(message) },
  { what: 'path without slash', headers: { ...range, ':path': 'x' }, body: grpcMessage(message) },
  { what: 'path of one part', headers: { ...range, ':path': '/x' }, body: grpcMessage(message) },
  { what: 'content type', headers: { ...range, 'content-type': 'application/json' }, body: grpcMessage(message) },
  { what: 'no content type', headers: { ':method': 'POST', ':path': '/x/y' }, body: grpcMessage(message) },
  { what: 'GET', headers: { ...range, ':method': 'GET' }, body: null },
  { what: 'PUT', headers: { ...range, ':method': 'PUT' }, body: grpcMessage(message) },
  { what: 'timeout unit', headers: { ...range, 'grpc-timeout': '1x' }, body: grpcMessage(message) },
  { what: 'timeout digits', headers: { ...range, 'grpc-timeout': 'abS' }, body: grpcMessage(message) },
  { what: 'timeout length', headers: { ...range, 'grpc-timeout': '123456789S' }, body: grpcMessage(message) },
  { what: 'timeout of nothing', headers: { ...range, 'grpc-timeout': '0n' }, body: grpcMessage(message) },
  { what: 'unknown encoding', headers: { ...range, 'grpc-encoding': 'snappy' }, body: grpcMessage(message, 1) },
  { what: 'identity', headers: { ...range, 'grpc-encoding': 'identity' }, body: grpcMessage(message, 1) },
  { what: 'flag without encoding', headers: range, body: grpcMessage(message, 1) },
  { what: 'flag 2', headers: range, body: grpcMessage(message, 2) },
  { what: 'gzip', headers: { ...range, 'grpc-encoding': 'gzip' }, body: grpcMessage(gzipSync(message), 1) },
  { what: 'gzip that is none', headers: { ...range, 'grpc-encoding': 'gzip' }, body: grpcMessage(message, 1) },
  {
    what: 'gzip of too much',
    headers: { ...range, 'grpc-encoding': 'gzip' },
    body: grpcMessage(gzipSync(Buffer.alloc(9e6)), 1),
  },
  { what: 'no message', headers: range, body: Buffer.alloc(0) },
  { what: 'half a prefix', headers: range, body: Buffer.from([0, 0]) },
  { what: 'half a message', headers: range, body: grpcMessage(message).subarray(0, 6) },
  { what: 'too large', headers: range, body: grpcMessage(Buffer.alloc(requestBytesMax + 1)) },
  {
    what: 'missing te',
    headers: { ':method': 'POST', ':path': range[':path'], 'content-type': 'application/grpc' },
    body: grpcMessage(message),
  },
  { what: 'subtype', headers: { ...range, 'content-type': 'application/grpc+proto' }, body: grpcMessage(message) },
  { what: 'parameter', headers: { ...range, 'content-type': 'application/grpc;a=b' }, body: grpcMessage(message) },
  { what: 'two messages', headers: range, body: Buffer.concat([grpcMessage(message), grpcMessage(message)]) },
  { what: 'binary metadata', headers: { ...range, 'x-bin': '*' }, body: grpcMessage(message) },
  { what: 'padding in binary metadata', headers: { ...range, 'x-bin': 'AQ=' }, body: grpcMessage(message) },
  {
    what: 'stream without a message',
    headers: { ...range, ':path': '/etcdserverpb.Maintenance/Snapshot' },
    body: Buffer.alloc(0),
  },
  {
    what: 'stream with two',
    headers: { ...range, ':path': '/etcdserverpb.Maintenance/Snapshot' },
    body: Buffer.concat([grpcMessage(''), grpcMessage('')]),
  },
  {
    what: 'stream cut short',
    headers: { ...range, ':path': '/etcdserverpb.Watch/Watch' },
    body: grpcMessage(message).subarray(0, 6),
  },
  {
    what: 'stream with half a prefix',
    headers: { ...range, ':path': '/etcdserverpb.Lease/LeaseKeepAlive' },
    body: Buffer.from([0, 0]),
  },
  {
    what: 'stream with flag 2',
    headers: { ...range, ':path': '/etcdserverpb.Watch/Watch' },
    body: grpcMessage(message, 2),
  },
];

/** What a client sees of an answer. */
async function ask(session: ClientHttp2Session, request: Request): Promise<Fields> {
  const stream = session.request(request.headers, { endStream: request.body === null });
  stream.on('error', () => {});
  const seen: Fields = {};
  const take = (fields: object): void => {
    for (const [name, value] of Object.entries(fields)) {
      if (/^(:status|content-type|grpc-status|grpc-message|grpc-encoding)$/.test(name)) seen[name] = String(value);
    }
  };
  stream.on('response', take);
  stream.on('trailers', take);
  const parts: Buffer[] = [];
  stream.on('data', (part: Buffer) => parts.push(part));
  if (request.body !== null) stream.end(request.body);
  const late = setTimeout(() => {
    seen['hangs'] = 'yes';
    stream.close();
  }, 2000);
  await new Promise((resolve) => stream.on('close', resolve));
  clearTimeout(late);
  const body = Buffer.concat(parts);
  seen['flag'] = body.length > 0 ? String(body[0]) : 'none';
  if (body[0] === 1) gunzipSync(body.subarray(5));
  // An absent message and an empty one are the same; a gzip error's text is the library's.
  if (seen['grpc-message'] === '') delete seen['grpc-message'];
  if (seen['grpc-message']?.startsWith('grpc: failed to decompress')) seen['grpc-message'] = 'gzip error';
  return seen;
}

/** KV.Range as etcd answers it on an empty store, as far as it matters here. */
function rangeRouter(): Router {
  const router = new Router();
  const answer = Buffer.from([0x0a, 0]);
  router.unary('etcdserverpb.KV', 'Range', (call) => call.respond(answer, 0, 2));
  const silent = { open: (): void => {}, message: (): void => {}, halfClose: (call: ServerCall): void => call.end() };
  router.stream('etcdserverpb.Watch', 'Watch', 'bidi', silent);
  router.stream('etcdserverpb.Lease', 'LeaseKeepAlive', 'bidi', silent);
  router.stream('etcdserverpb.Maintenance', 'Snapshot', 'server', silent);
  return router;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

async function awaitPort(port: number): Promise<void> {
  for (let i = 0; i < 200; i += 1) {
    const socket = connectTcp(port, '127.0.0.1');
    const open = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'error').then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('etcd does not listen');
}

test("refusals and encodings are etcd's", { skip }, async () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'keelson-grpc-peer-'));
  const [clientPort, peerPort] = [await freePort(), await freePort()];
  const clientUrl = `http://127.0.0.1:${clientPort}`;
  const peerUrl = `http://127.0.0.1:${peerPort}`;
  const child = spawn(
    etcd,
    [
      `--data-dir=${directory}`,
      `--listen-client-urls=${clientUrl}`,
      `--advertise-client-urls=${clientUrl}`,
      `--listen-peer-urls=${peerUrl}`,
      `--initial-advertise-peer-urls=${peerUrl}`,
      `--initial-cluster=default=${peerUrl}`,
    ],
    { stdio: 'ignore' },
  );
  const ours = await startEchoServer([{ host: '127.0.0.1', port: 0 }], { router: rangeRouter(), onHttpRequest: null });
  try {
    await awaitPort(clientPort);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const differences: string[] = [];
    for (const request of requests) {
      // A session for each: some of the answers end it.
      const answers: Fields[] = [];
      for (const port of [clientPort, ours.port]) {
        const session = connect(`http://127.0.0.1:${port}`);
        session.on('error', () => {});
        answers.push(await ask(session, request));
        session.destroy();
      }
      const [theirs, own] = answers.map((answer) => JSON.stringify(Object.entries(answer).sort()));
      if (theirs !== own) differences.push(`${request.what}:\n  etcd    ${theirs}\n  keelson ${own}`);
    }
    assert.equal(differences.length, 0, `\n${differences.join('\n')}`);
  } finally {
    child.kill('SIGTERM');
    await once(child, 'exit');
    await ours.close();
    rmSync(directory, { recursive: true });
  }
});
