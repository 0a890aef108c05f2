// The other end of an HTTP/2 connection for tests: frames by hand over an in-memory transport, good ones and bad ones.
// What the server answers is parsed back, header blocks decoded, so that tests compare fields and not bytes.

import { assert } from '../base/assert.ts';
import type { GrpcConnection } from '../grpc/connection.ts';
import { GrpcServer, type GrpcServerOptions, grpcServerOptions } from '../grpc/server.ts';
import type { Transport } from '../http2/application.ts';
import { clientPreface, FrameType, readUint31, readUint32, writeFrameHeader } from '../http2/frame.ts';
import { HpackDecoder } from '../http2/hpack-decoder.ts';
import { encodedBytesMax, HpackEncoder, type OutputField } from '../http2/hpack-encoder.ts';
import { echoRouter } from './echo-server.ts';

/** A transport that keeps what is written. `blocked` makes it a socket whose peer does not read. */
export class MemoryTransport implements Transport {
  private written: Buffer[] = [];
  blocked = false;
  pendingBytes = 0;
  writeCount = 0;
  ended = false;
  destroyed = false;

  write(chunks: Buffer[]): boolean {
    assert(!this.ended && !this.destroyed, 'nothing is written behind the end');
    this.writeCount += 1;
    for (const chunk of chunks) {
      // A copy: the chunk is the connection's again when pendingBytes is 0.
      this.written.push(Buffer.from(chunk));
      if (this.blocked) this.pendingBytes += chunk.length;
    }
    return this.pendingBytes === 0;
  }

  end(): void {
    this.ended = true;
  }

  destroy(): void {
    this.destroyed = true;
  }

  take(): Buffer {
    const bytes = Buffer.concat(this.written);
    this.written = [];
    return bytes;
  }
}

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
  /** Of HEADERS: the decoded fields. */
  readonly fields: Readonly<Record<string, string>>;
}

/** A gRPC message with its prefix. */
export function grpcMessage(message: Buffer | string, flag = 0): Buffer {
  const body = Buffer.from(message as string);
  const out = Buffer.alloc(5 + body.length);
  out[0] = flag;
  out.writeUInt32BE(body.length, 1);
  body.copy(out, 5);
  return out;
}

export function frameOf(type: number, flags: number, id: number, payload: Buffer | string = ''): Buffer {
  const body = Buffer.from(payload as string);
  const out = Buffer.alloc(9 + body.length);
  writeFrameHeader(out, 0, body.length, type, flags, id);
  body.copy(out, 9);
  return out;
}

export function uint32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value >>> 0);
  return out;
}

export function setting(id: number, value: number): Buffer {
  return Buffer.concat([Buffer.from([0, id]), uint32(value)]);
}

/** A server of the echo methods in memory. Its clock stands still unless one is given; nothing is flushed by itself. */
export function memoryServer(overrides: Partial<GrpcServerOptions> = {}): GrpcServer {
  return new GrpcServer(
    grpcServerOptions({ router: echoRouter(), clock: { nowMs: () => 0 }, schedule: () => {}, ...overrides }),
  );
}

let connectionCount = 0;

export class TestClient {
  readonly transport: MemoryTransport = new MemoryTransport();
  readonly connection: GrpcConnection;
  readonly encoder: HpackEncoder = new HpackEncoder(4096);
  private readonly decoder: HpackDecoder = new HpackDecoder(4096);
  private nextId = 1;

  constructor(server: GrpcServer) {
    connectionCount += 1;
    const info = { id: connectionCount, remoteAddress: '127.0.0.1:1', localAddress: '127.0.0.1:2', tls: null };
    this.connection = server.accept(this.transport, info);
  }

  /** Preface and empty (or given) SETTINGS; the server's own are swallowed. */
  open(settings: Buffer = Buffer.alloc(0)): this {
    this.send(clientPreface, frameOf(FrameType.settings, 0, 0, settings));
    this.frames();
    return this;
  }

  /** Feeds bytes as one chunk and flushes, as the listener does. */
  send(...parts: Buffer[]): void {
    this.connection.receive(Buffer.concat(parts));
    this.connection.flush();
  }

  block(fields: readonly OutputField[]): Buffer {
    const out = Buffer.alloc(encodedBytesMax(fields));
    return out.subarray(0, this.encoder.encode(fields, out, 0));
  }

  newId(): number {
    const id = this.nextId;
    this.nextId += 2;
    return id;
  }

  headers(id: number, fields: readonly OutputField[], flags = 4): Buffer {
    return frameOf(FrameType.headers, flags, id, this.block(fields));
  }

  /** HEADERS of a gRPC call. */
  callHeaders(id: number, method: string, extra: readonly OutputField[] = [], endStream = false): Buffer {
    return this.headers(id, [...grpcFields(method), ...extra], endStream ? 5 : 4);
  }

  /** A whole unary call as bytes. */
  callBytes(id: number, method: string, message: Buffer | string, extra: readonly OutputField[] = []): Buffer {
    return Buffer.concat([this.callHeaders(id, method, extra), frameOf(0, 1, id, grpcMessage(message))]);
  }

  /** What the server has sent since the last call. */
  frames(): Frame[] {
    const bytes = this.transport.take();
    const frames: Frame[] = [];
    let at = 0;
    while (at < bytes.length) {
      const length = bytes.readUIntBE(at, 3);
      const payload = bytes.subarray(at + 9, at + 9 + length);
      assert(payload.length === length, 'the server sends whole frames');
      const type = bytes[at + 3]!;
      const fields: Record<string, string> = {};
      if (type === FrameType.headers) {
        assert((bytes[at + 4]! & 4) !== 0, 'tests decode whole blocks only');
        const ok = this.decoder.decode(payload, 0, length, {
          field: (field): void => {
            fields[field.name] = field.value;
          },
        });
        assert(ok, 'the server encodes what can be decoded');
      }
      frames.push({ type, flags: bytes[at + 4]!, id: readUint31(bytes, at + 5), payload, fields });
      at += 9 + length;
    }
    return frames;
  }

  /** Sends one unary call and returns its answer: the echo's text or its status. */
  call(method: string, message: Buffer | string): string {
    const id = this.newId();
    this.send(this.callBytes(id, method, message));
    return answerOf(this.frames(), id);
  }
}

/** A call's answer in words: "OK text", "code message", "RST code" or "nothing". */
export function answerOf(frames: readonly Frame[], id: number): string {
  let data = Buffer.alloc(0);
  let answer = 'nothing';
  for (const frame of frames) {
    if (frame.id !== id) continue;
    if (frame.type === FrameType.data) data = Buffer.concat([data, frame.payload]);
    else if (frame.type === FrameType.rstStream && answer === 'nothing') answer = `RST ${readUint32(frame.payload, 0)}`;
    else if (frame.type === FrameType.headers && (frame.flags & 1) !== 0) {
      const code = frame.fields['grpc-status'];
      answer = code === '0' ? `OK ${data.toString('latin1', 5)}` : `${code} ${frame.fields['grpc-message']}`;
    }
  }
  return answer;
}

/** "code debug" of the GOAWAY among frames, or "none". */
export function goAwayOf(frames: readonly Frame[]): string {
  const frame = frames.findLast(({ type }) => type === FrameType.goAway);
  if (frame === undefined) return 'none';
  return `${readUint32(frame.payload, 4)} ${frame.payload.toString('latin1', 8)}`;
}

export function grpcFields(method: string): OutputField[] {
  return [
    { name: ':method', value: 'POST' },
    { name: ':scheme', value: 'http' },
    { name: ':path', value: `/echo.Echo/${method}`, indexed: true },
    { name: ':authority', value: 'test', indexed: true },
    { name: 'content-type', value: 'application/grpc', indexed: true },
    { name: 'te', value: 'trailers', indexed: true },
  ];
}
