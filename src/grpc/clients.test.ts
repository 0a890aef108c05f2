// Goal: clients that others wrote work against the engine over real sockets. Method: @grpc/grpc-js for every kind of call,
// cancellation, deadlines, large messages, metadata, compression and keepalive; node:http2 (nghttp2) as a raw client.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, connect, type OutgoingHttpHeaders } from 'node:http2';
import { after, before, test } from 'node:test';
import {
  Client,
  type ClientOptions,
  compressionAlgorithms,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { type EchoServer, startEchoServer } from '../testing/echo-server.ts';

let server: EchoServer;
let client: Client;

function newClient(options: ClientOptions = {}): Client {
  return new Client(`127.0.0.1:${server.port}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
    ...options,
  });
}

before(async () => {
  server = await startEchoServer([{ host: '127.0.0.1', port: 0 }]);
  client = newClient();
});

after(async () => {
  client.close();
  await server.close();
});

const same = (bytes: Buffer): Buffer => bytes;

interface Options {
  readonly metadata?: Metadata;
  readonly deadlineMs?: number;
  readonly by?: Client;
}

function unary(method: string, message: Buffer | string, options: Options = {}): Promise<Buffer> {
  const { metadata = new Metadata(), deadlineMs, by = client } = options;
  const callOptions = deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs };
  return new Promise((resolve, reject) => {
    by.makeUnaryRequest(
      `/echo.Echo/${method}`,
      same,
      same,
      Buffer.from(message as string),
      metadata,
      callOptions,
      (error, answer) => (error === null ? resolve(answer!) : reject(error)),
    );
  });
}

function failsWith(code: status, details: RegExp): (error: ServiceError) => boolean {
  return (error) => {
    assert.equal(error.code, code, error.message);
    assert.match(error.details, details);
    return true;
  };
}

test('grpc-js: unary, in this turn and in a later one, empty and large', async () => {
  assert.equal((await unary('Unary', 'hello')).toString(), 'hello');
  assert.equal((await unary('Late', 'hello')).toString(), 'hello');
  assert.equal((await unary('Unary', '')).length, 0);
  const large = Buffer.alloc(2_000_000, 'large');
  assert.ok((await unary('Unary', large)).equals(large));
  assert.equal((await unary('Size', '50000000')).length, 50_000_000);
});

test('grpc-js: errors', async () => {
  await assert.rejects(unary('Fail', 'größe %'), failsWith(status.FAILED_PRECONDITION, /^größe %$/));
  await assert.rejects(
    unary('None', ''),
    failsWith(status.UNIMPLEMENTED, /unknown method None for service echo\.Echo/),
  );
  const larger = failsWith(status.RESOURCE_EXHAUSTED, /received message larger than max \(3000000 vs\. 2097152\)/);
  await assert.rejects(unary('Unary', Buffer.alloc(3_000_000)), larger);
});

test('grpc-js: a thousand calls at once', async () => {
  const answers = await Promise.all(
    Array.from({ length: 1000 }, (_, i) => unary(i % 2 === 0 ? 'Unary' : 'Late', `m${i}`)),
  );
  answers.forEach((answer, i) => {
    assert.equal(answer.toString(), `m${i}`);
  });
});

test('grpc-js: deadline and cancellation reach the server', async () => {
  await assert.rejects(unary('Never', '', { deadlineMs: 150 }), failsWith(status.DEADLINE_EXCEEDED, /./));
  const call = client.makeUnaryRequest('/echo.Echo/Never', same, same, Buffer.alloc(0), () => {});
  setTimeout(() => call.cancel(), 50);
  const [result] = await once(call, 'status');
  assert.equal((result as { code: number }).code, status.CANCELLED);
  const open = (): number => [...server.grpc.list()].reduce((sum, connection) => sum + connection.http2.streamCount, 0);
  for (let i = 0; i < 100 && open() > 0; i += 1) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(open(), 0, 'both calls are gone on the server');
});

test('grpc-js: metadata of both kinds', async () => {
  const metadata = new Metadata();
  metadata.set('token', 'secret');
  metadata.set('raw-bin', Buffer.from([0, 255, 7]));
  assert.equal((await unary('Header', 'token', { metadata })).toString(), 'secret');
  assert.deepEqual(await unary('Header', 'raw-bin', { metadata }), Buffer.from([0, 255, 7]));
});

test('grpc-js: gzip both ways', async () => {
  const by = newClient({ 'grpc.default_compression_algorithm': compressionAlgorithms.gzip });
  const large = Buffer.alloc(1_000_000, 'compress me');
  assert.ok((await unary('Unary', large, { by })).equals(large));
  by.close();
});

test('grpc-js: client streaming', async () => {
  const answer = await new Promise<Buffer>((resolve, reject) => {
    const call = client.makeClientStreamRequest('/echo.Echo/Count', same, same, (error, value) =>
      error === null ? resolve(value!) : reject(error),
    );
    for (let i = 0; i < 500; i += 1) call.write(Buffer.alloc(i * 10));
    call.end();
  });
  assert.equal(answer.toString(), `500 ${(499 * 500 * 10) / 2}`);
});

test('grpc-js: server streaming, slowly read', async () => {
  const call = client.makeServerStreamRequest('/echo.Echo/Many', same, same, Buffer.from('2000 10000'));
  let messages = 0;
  for await (const message of call) {
    assert.equal((message as Buffer).length, 10_000);
    messages += 1;
    if (messages === 100) await new Promise((resolve) => setTimeout(resolve, 100));
    if (messages === 100) {
      const pending = [...server.grpc.list()].map((connection) => connection.http2.writer.pendingBytes);
      assert.ok(Math.max(...pending) < 200_000, 'the rest waits in the handler, not in memory');
    }
  }
  assert.equal(messages, 2000);
});

test('grpc-js: bidirectional streaming', async () => {
  const call = client.makeBidiStreamRequest('/echo.Echo/Bidi', same, same);
  const received: string[] = [];
  call.on('data', (message: Buffer) => received.push(message.toString()));
  for (let i = 0; i < 100; i += 1) call.write(Buffer.from(`m${i}`));
  call.end();
  const [result] = await once(call, 'status');
  assert.equal((result as { code: number }).code, status.OK);
  assert.deepEqual(
    received,
    Array.from({ length: 100 }, (_, i) => `m${i}`),
  );
});

test('grpc-js: drain lets a stream finish, new calls go to a new connection', async () => {
  const other = await startEchoServer([{ host: '127.0.0.1', port: 0 }]);
  const by = new Client(`127.0.0.1:${other.port}`, credentials.createInsecure());
  const call = by.makeBidiStreamRequest('/echo.Echo/Bidi', same, same);
  call.write(Buffer.from('one'));
  const [first] = await once(call, 'data');
  assert.equal(String(first), 'one');
  const drained = new Promise<void>((resolve) => other.grpc.drain(resolve));
  await new Promise((resolve) => setTimeout(resolve, 100));
  call.write(Buffer.from('two'));
  const [second] = await once(call, 'data');
  assert.equal(String(second), 'two');
  call.end();
  await drained;
  by.close();
  await other.close();
});

interface RawAnswer {
  readonly headers: Record<string, unknown>;
  readonly trailers: Record<string, unknown>;
  readonly body: Buffer;
}

async function raw(session: ClientHttp2Session, headers: OutgoingHttpHeaders, body?: Buffer): Promise<RawAnswer> {
  const stream = session.request(headers, { endStream: body === undefined });
  let trailers: Record<string, unknown> = {};
  stream.on('trailers', (fields) => {
    trailers = fields;
  });
  if (body !== undefined) stream.end(body);
  const [fields] = await once(stream, 'response');
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  return { headers: fields as Record<string, unknown>, trailers, body: Buffer.concat(parts) };
}

test('node:http2: gRPC by hand and plain HTTP on one session', async () => {
  const session = connect(`http://127.0.0.1:${server.port}`);
  const grpc = { ':method': 'POST', ':path': '/echo.Echo/Unary', 'content-type': 'application/grpc', te: 'trailers' };
  const answer = await raw(session, grpc, Buffer.from('\0\0\0\0\x03abc'));
  assert.equal(answer.headers[':status'], 200);
  assert.equal(answer.trailers['grpc-status'], '0');
  assert.equal(answer.body.toString(), '\0\0\0\0\x03abc');
  const refused = await raw(session, { ...grpc, ':path': '/no.Such/Method' }, Buffer.alloc(5));
  assert.equal(refused.headers['grpc-status'], '12');
  const http = await raw(session, { ':path': '/health' });
  assert.equal(http.body.toString(), 'echo of /health\n');
  const missing = await raw(session, { ':path': '/none' });
  assert.equal(missing.headers[':status'], 404);
  const [, , pong] = await new Promise<[Error | null, number, Buffer]>((resolve) => {
    session.ping(Buffer.from('12345678'), (...result) => resolve(result));
  });
  assert.equal(pong.toString(), '12345678');
  session.close();
});
