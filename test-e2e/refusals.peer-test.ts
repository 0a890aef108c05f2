// Goal: what a client sees of a request that is strange rather than wrong, on the wire of protobuf, gRPC or HTTP, is what it sees of
// an etcd. Method: the same bytes to a real etcd and to keelson; statuses and messages are compared. Protobuf's error begins with
// "proto:" and a space that Go's library draws anew for each program: it is taken for one.

import assert from 'node:assert/strict';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { freePorts } from '../src/testing/free-port.ts';
import { loneMemberFlags } from '../src/testing/peer-programs.ts';
import { Program, scratchFolder, serverFile } from './program.ts';
import { EtcdClient, type Result } from './support/etcd-client.ts';

const scratch = scratchFolder('refusals');
const programs: Program[] = [];
const clients: EtcdClient[] = [];
const ports: number[] = [];

const servers = ['etcd', 'keelson'] as const;

async function flagsFor(name: string): Promise<[clientPort: number, flags: string[]]> {
  const [clientPort, peerPort] = await freePorts(2);
  const client = `http://127.0.0.1:${clientPort}`;
  const peer = `http://127.0.0.1:${peerPort}`;
  return [clientPort!, loneMemberFlags('m1', join(scratch.folder, name), client, peer)];
}

before(async () => {
  for (const name of servers) {
    const [port, args] = await flagsFor(name);
    const program = new Program({ name, file: serverFile(name), args, folder: scratch.folder });
    programs.push(program);
    ports.push(port);
    await program.says();
    clients.push(new EtcdClient(`127.0.0.1:${port}`));
  }
});

after(async () => {
  for (const client of clients) client.close();
  for (const program of programs) await program.stop();
  scratch.remove();
});

// --- protobuf ---

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}
const tag = (field: number, wireType: number): number[] => varint(field * 8 + wireType);
const field = (number: number, bytes: Buffer): Buffer =>
  Buffer.concat([Buffer.from([...tag(number, 2), ...varint(bytes.length)]), bytes]);
const group = (number: number, inner: readonly number[] = []): number[] => [
  ...tag(number, 3),
  ...inner,
  ...tag(number, 4),
];
const nothing = Buffer.alloc(0);

/** So many Txns in each other, around `inner`. */
function nested(depth: number, inner: Buffer = nothing): Buffer {
  let bytes = inner;
  for (let i = 1; i < depth; i++) bytes = field(2, field(4, bytes));
  return bytes;
}

const outcome = (result: Result<unknown>): string =>
  result.ok ? 'OK' : `${result.code} ${result.message.replace(/proto:\s/, 'proto: ')}`;

async function both(path: string, request: Buffer): Promise<[etcd: string, keelson: string]> {
  const [etcd, keelson] = await Promise.all(clients.map(async (client) => outcome(await client.call(path, request))));
  return [etcd!, keelson!];
}

const malformed = '13 grpc: error unmarshalling request: proto: cannot parse invalid wire-format data';
const tooMany = '3 etcdserver: too many operations in txn request';

test('Txns in Txns: the operations count, in the order of the checks', async () => {
  const emptyPut = field(2, field(2, nothing));
  const cases: readonly [string, Buffer, string][] = [
    ['as deep as it may be', nested(129), 'OK'],
    ['one deeper', nested(130), tooMany],
    ['1,000 deep', nested(1000), tooMany],
    ['5,000 deep', nested(5000), tooMany],
    ['after a put without a key', Buffer.concat([emptyPut, nested(1000)]), '3 etcdserver: key is not provided'],
    ['before one', Buffer.concat([nested(1000), emptyPut]), tooMany],
    ['malformed far inside', nested(1000, Buffer.from([0x0a, 5])), malformed],
    ['malformed behind', Buffer.concat([nested(1000), Buffer.from([0x0a, 5])]), malformed],
  ];
  for (const [name, request, expected] of cases) {
    assert.deepEqual(await both('/etcdserverpb.KV/Txn', request), [expected, expected], name);
  }
  // Beyond what Go's decoder takes it says why; to us these bytes are as malformed as any others.
  const [etcd, keelson] = await both('/etcdserverpb.KV/Txn', nested(5001));
  assert.match(etcd, /^13 .*exceeded maximum recursion depth$/);
  assert.equal(keelson, malformed);
});

test('groups are skipped where they are well-formed', async () => {
  const fields = [0x08, 5, 0x0d, 1, 2, 3, 4, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x12, 1, 0x0c];
  const deep = (depth: number): number[] => [...Array<number>(depth).fill(0x7b), ...Array<number>(depth).fill(0x7c)];
  const cases: readonly [string, number[], string][] = [
    ['an empty one', group(99), 'OK'],
    ['under the number of the key', group(1, [0x0a, 1, 0x78]), 'OK'],
    ['with fields', group(99, [...fields, ...group(1, fields)]), 'OK'],
    ['its end padded', [0x9b, 0x06, 0x9c, 0x86, 0x80, 0x00], 'OK'],
    ['a number of 31 bits inside', group(99, [...tag(2 ** 31 - 1, 0), 1]), 'OK'],
    ['a number of 32 bits inside', group(99, [...tag(2 ** 31, 0), 1]), malformed],
    ['a number of 29 bits outside', [...tag(2 ** 29 - 1, 0), 1], 'OK'],
    ['a number of 30 bits outside', [...tag(2 ** 29, 0), 1], malformed],
    ['10,001 in each other', deep(10_001), 'OK'],
    ['10,002 in each other', deep(10_002), malformed],
    ['without an end', tag(99, 3), malformed],
    ['an end alone', tag(99, 4), malformed],
    ['the end of another', [...tag(99, 3), ...tag(98, 4)], malformed],
    ['the number 0 inside', group(99, [0, 1]), malformed],
    ['wire type 6 inside', group(99, [0x0e]), malformed],
  ];
  for (const [name, bytes, expected] of cases) {
    const put = Buffer.concat([Buffer.from(bytes), field(1, Buffer.from('k')), Buffer.from(bytes)]);
    assert.deepEqual(await both('/etcdserverpb.KV/Put', put), [expected, expected], name);
    const lease = Buffer.concat([Buffer.from(bytes), Buffer.from([0x08, 100])]);
    assert.deepEqual(await both('/etcdserverpb.Lease/LeaseGrant', lease), [expected, expected], `${name}: LeaseGrant`);
  }
  const inTxn = field(2, Buffer.concat([Buffer.from(group(9)), field(2, field(1, Buffer.from('k')))]));
  assert.deepEqual(await both('/etcdserverpb.KV/Txn', inTxn), ['OK', 'OK']);
});

test('bytes that are no message: unary methods and streams say it in other words', async () => {
  const bytes = Buffer.from([0x0a, 100]);
  for (const method of ['KV/Range', 'KV/Txn', 'Lease/LeaseGrant', 'Maintenance/Status', 'Auth/AuthStatus']) {
    assert.deepEqual(await both(`/etcdserverpb.${method}`, bytes), [malformed, malformed], method);
  }
  const inStream = '13 grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data';
  for (const method of ['KV/RangeStream', 'Maintenance/Snapshot', 'Watch/Watch', 'Lease/LeaseKeepAlive']) {
    const answers = clients.map(async (client) => outcome(await client.collect(`/etcdserverpb.${method}`, bytes)));
    assert.deepEqual(await Promise.all(answers), [inStream, inStream], method);
  }
});

// --- HTTP ---

/** The status of what comes back to these bytes. */
function http1(port: number, bytes: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    let text = '';
    const finish = (): void => {
      socket.destroy();
      resolve(/^HTTP\/1\.1 (\d+) /.exec(text)?.[1] ?? `nothing: ${text}`);
    };
    socket.setTimeout(5000, finish);
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      if (text.includes('\r\n\r\n')) finish();
    });
    socket.on('error', finish);
    socket.on('close', finish);
  });
}

test('HTTP/1.1: two hosts are refused, CONNECT leads nowhere', async () => {
  const cases: readonly [string, string][] = [
    ['GET /health HTTP/1.1\r\nHost: a\r\n\r\n', '200'],
    ['GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', '400'],
    ['GET /health HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n', '400'],
    ['CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n', '404'],
  ];
  for (const [bytes, expected] of cases) {
    assert.deepEqual(await Promise.all(ports.map((port) => http1(port, bytes))), [expected, expected], bytes);
  }
});

interface Http2Answer {
  readonly status: unknown;
  readonly grpcStatus: unknown;
  readonly grpcMessage: unknown;
}

function http2(port: number, headers: Record<string, string>): Promise<Http2Answer> {
  return new Promise((resolve, reject) => {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    session.on('error', reject);
    const stream = session.request(headers);
    stream.on('error', reject);
    stream.on('response', (fields) => {
      const { ':status': status, 'grpc-status': grpcStatus, 'grpc-message': grpcMessage } = fields;
      session.destroy();
      resolve({ status, grpcStatus, grpcMessage });
    });
    stream.end(headers[':method'] === 'GET' ? undefined : Buffer.from([0, 0, 0, 0, 0]));
  });
}

test('HTTP/2: another content type than gRPC’s on its methods is 415', async () => {
  const path = '/etcdserverpb.KV/Range';
  const cases: readonly Record<string, string>[] = [
    { ':path': path, 'content-type': 'text/plain' },
    { ':path': path, 'content-type': 'application/json' },
    { ':path': path, 'content-type': 'application/grpcx' },
    { ':path': path, 'content-type': 'application/grpc-web' },
    { ':path': '/no.Such/Method', 'content-type': 'application/grpc-web+proto' },
    { ':path': path },
    { ':path': path, ':method': 'GET' },
  ];
  for (const fields of cases) {
    const headers = { ':method': 'POST', te: 'trailers', ...fields };
    const [etcd, keelson] = await Promise.all(ports.map((port) => http2(port, headers)));
    assert.deepEqual(keelson, etcd, JSON.stringify(fields));
    assert.deepEqual([etcd!.status, etcd!.grpcStatus], [415, '3'], JSON.stringify(fields));
  }
});
