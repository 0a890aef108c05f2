// Unary echo calls a second through the HTTP/2 and gRPC engine: a server process (src/testing/echo-server.ts) and this
// client, which is as light as a client can be: prebuilt frames, one write a read, no HPACK but its first request.
// The figure to look at is the server's CPU a call: the machine may be shared.
//
// node bench/echo.ts [--connections 20] [--streams 50] [--seconds 3] [--bytes 36] [--method Unary] [--timeout]
//                    [--cpu-prof DIR] [--port P (a running server)]

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { parseArgs } from 'node:util';
import { HpackEncoder, type OutputField } from '../src/http2/hpack-encoder.ts';

interface Usage {
  readonly cpu: { readonly user: number; readonly system: number };
  readonly memory: { readonly rss: number };
}

const { values } = parseArgs({
  options: {
    connections: { type: 'string', default: '20' },
    streams: { type: 'string', default: '50' },
    seconds: { type: 'string', default: '3' },
    bytes: { type: 'string', default: '36' },
    method: { type: 'string', default: 'Unary' },
    timeout: { type: 'boolean', default: false },
    'cpu-prof': { type: 'string' },
    port: { type: 'string' },
  },
});
const streamCount = Number(values.streams);
const messageBytes = Number(values.bytes);

function frame(type: number, flags: number, streamId: number, payload: Buffer): Buffer {
  const out = Buffer.alloc(9 + payload.length);
  out.writeUIntBE(payload.length, 0, 3);
  out[3] = type;
  out[4] = flags;
  out.writeUInt32BE(streamId, 5);
  payload.copy(out, 9);
  return out;
}

const fields: readonly OutputField[] = [
  { name: ':method', value: 'POST' },
  { name: ':scheme', value: 'http' },
  { name: ':path', value: `/echo.Echo/${values.method}`, indexed: true },
  { name: ':authority', value: '127.0.0.1:2379', indexed: true },
  { name: 'content-type', value: 'application/grpc', indexed: true },
  { name: 'user-agent', value: 'grpc-go/1.82.1', indexed: true },
  { name: 'te', value: 'trailers', indexed: true },
];

/** The first block fills the dynamic table, the others are indexes, as grpc-go's. */
function headerBlocks(): { first: Buffer; next: Buffer } {
  const encoder = new HpackEncoder(4096);
  const out = Buffer.alloc(1024);
  const first = Buffer.from(out.subarray(0, encoder.encode(fields, out, 0)));
  return { first, next: Buffer.from(out.subarray(0, encoder.encode(fields, out, 0))) };
}

const { first, next } = headerBlocks();
const body = Buffer.alloc(5 + messageBytes, 0x61);
body[0] = 0;
body.writeUInt32BE(messageBytes, 1);

let finished = false;

class Client {
  private readonly socket: Socket;
  private readonly template: Buffer;
  private readonly headerBytes: number;
  private streamId = 1;
  private held: Buffer = Buffer.alloc(0);
  private received = 0;
  /** DATA bytes of all answers: shows that they were echoes. */
  dataBytes = 0;
  private timeouts = 0;
  private readonly encoder: HpackEncoder = new HpackEncoder(4096);
  calls = 0;

  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true });
    const headers = frame(1, 4, 0, next);
    this.headerBytes = headers.length;
    this.template = Buffer.concat([headers, frame(0, 1, 0, body)]);
    this.socket.on('data', (chunk) => this.read(chunk as Buffer));
    this.socket.on('error', (error) => {
      if (!finished) throw error;
    });
  }

  async start(): Promise<void> {
    await once(this.socket, 'connect');
    const settings = Buffer.from([0, 4, 0x7f, 0xff, 0xff, 0xff]);
    const grow = Buffer.from([0x3f, 0xff, 0, 0]);
    this.socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    this.socket.write(Buffer.concat([frame(4, 0, 0, settings), frame(8, 0, 0, grow)]));
    if (!values.timeout) {
      this.socket.write(Buffer.concat([frame(1, 4, 1, first), frame(0, 1, 1, body)]));
      this.streamId = 3;
    }
    this.send(streamCount - (values.timeout ? 0 : 1));
  }

  private send(count: number): void {
    if (values.timeout) {
      this.sendEncoded(count);
      return;
    }
    const bytes = this.template.length;
    const out = Buffer.allocUnsafe(bytes * count);
    for (let i = 0, at = 0; i < count; i += 1, at += bytes) {
      this.template.copy(out, at);
      out.writeUInt32BE(this.streamId, at + 5);
      out.writeUInt32BE(this.streamId, at + this.headerBytes + 5);
      this.streamId += 2;
    }
    this.socket.write(out);
  }

  /** A timeout that differs in each call and enters the table, as grpc-go's do: no two header blocks are alike. */
  private sendEncoded(count: number): void {
    const out = Buffer.allocUnsafe((256 + body.length) * count);
    let at = 0;
    for (let i = 0; i < count; i += 1) {
      this.timeouts = (this.timeouts + 1) % 1_000_000;
      const timeout = { name: 'grpc-timeout', value: `${4_000_000 + this.timeouts}u`, indexed: true };
      const start = at + 9;
      const end = this.encoder.encode([...fields, timeout], out, start);
      out.writeUIntBE(end - start, at, 3);
      out.writeUInt16BE(0x0104, at + 3);
      out.writeUInt32BE(this.streamId, at + 5);
      this.template.copy(out, end, this.headerBytes);
      out.writeUInt32BE(this.streamId, end + 5);
      at = end + this.template.length - this.headerBytes;
      this.streamId += 2;
    }
    this.socket.write(out.subarray(0, at));
  }

  private read(chunk: Buffer): void {
    const input = this.held.length === 0 ? chunk : Buffer.concat([this.held, chunk]);
    let at = 0;
    let done = 0;
    while (input.length - at >= 9) {
      const length = (input[at]! << 16) | (input[at + 1]! << 8) | input[at + 2]!;
      if (input.length - at < 9 + length) break;
      const type = input[at + 3]!;
      if (type === 1 && (input[at + 4]! & 1) !== 0) done += 1;
      else if (type === 0) {
        this.received += length;
        this.dataBytes += length;
      } else if (type === 3 || type === 7)
        throw new Error(`frame ${type}: ${input.toString('latin1', at, at + 9 + length)}`);
      at += 9 + length;
    }
    this.held = at === input.length ? input.subarray(0, 0) : Buffer.from(input.subarray(at));
    this.calls += done;
    if (this.received > 0x1fffffff) {
      this.socket.write(frame(8, 0, 0, Buffer.from([0x1f, 0xff, 0xff, 0xff])));
      this.received -= 0x1fffffff;
    }
    if (done > 0) this.send(done);
  }
}

async function startServer(): Promise<{ child: ChildProcess | null; port: number }> {
  if (values.port !== undefined) return { child: null, port: Number(values.port) };
  const execArgv = values['cpu-prof'] === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${values['cpu-prof']}`];
  const child = fork(`${import.meta.dirname}/../src/testing/echo-server.ts`, ['--listen', '127.0.0.1:0'], {
    execArgv,
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  const [line] = await once(child.stdout!, 'data');
  return { child, port: Number(/:(\d+)\s*$/.exec(String(line))![1]) };
}

async function usage(child: ChildProcess | null): Promise<Usage | null> {
  if (child === null) return null;
  child.send('cpu');
  const [message] = await once(child, 'message');
  return message as Usage;
}

const { child, port } = await startServer();
const clients = Array.from({ length: Number(values.connections) }, () => new Client(port));
await Promise.all(clients.map((client) => client.start()));
const total = (): number => clients.reduce((sum, client) => sum + client.calls, 0);
const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
await wait(1000); // warm-up
const before = await usage(child);
const [calls, started] = [total(), performance.now()];
const ownCpu = process.cpuUsage();
await wait(Number(values.seconds) * 1000);
const after = await usage(child);
const done = total() - calls;
const dataBytes = clients.reduce((sum, client) => sum + client.dataBytes, 0);
if (dataBytes < total() * (5 + messageBytes)) throw new Error(`only ${dataBytes} bytes for ${total()} calls`);
const seconds = (performance.now() - started) / 1000;
const own = process.cpuUsage(ownCpu);
console.log(`${Math.round(done / seconds)} calls/s over ${seconds.toFixed(1)} s`);
if (before !== null && after !== null) {
  const user = (after.cpu.user - before.cpu.user) / done;
  const system = (after.cpu.system - before.cpu.system) / done;
  const perCall = user + system;
  console.log(
    `server CPU ${perCall.toFixed(2)} us a call (user ${user.toFixed(2)}, system ${system.toFixed(2)}): ` +
      `${Math.round(1e6 / perCall)} calls/s on one core; rss ${Math.round(after.memory.rss / 1e6)} MB`,
  );
}
console.log(`client CPU ${((own.user + own.system) / done).toFixed(2)} us a call`);
finished = true;
if (child !== null) {
  child.kill('SIGTERM');
  await once(child, 'exit');
}
process.exit(0);
