// A request over HTTP/2 that is not gRPC (curl --http2-prior-knowledge /health, the JSON gateway): its body is collected
// whole and handed to the injected handler, which answers once, at any time. Bodies are bounded each, and together with the
// connection's incomplete gRPC messages: a client may send as many at once as it may open streams.

import { grpcLimits } from '../connection-limits.ts';
import { HeaderBlock } from '../http2/header-block.ts';
import type { RequestHead } from '../http2/request-head.ts';
import { Http2Stream } from '../http2/stream.ts';
import type { GrpcConnection } from './connection.ts';
import { MessageAssembly } from './message-assembly.ts';

const EMPTY: Buffer = Buffer.alloc(0);
const plainText: Readonly<Record<string, string>> = { 'content-type': 'text/plain' };

export interface HttpRequest {
  readonly method: string;
  readonly path: string;
  /** By lower-case name; repeated fields joined with ", ". `host` is the authority. */
  readonly headers: Readonly<Record<string, string>>;
}

export type HttpRespond = (status: number, headers: Readonly<Record<string, string>>, body: Buffer) => void;
export type HttpHandler = (request: HttpRequest, body: Buffer, respond: HttpRespond) => void;

export class HttpExchange extends Http2Stream {
  private readonly owner: GrpcConnection;
  private readonly handler: HttpHandler;
  /** Null when it is empty or was handed over. Its bytes are counted in owner.assemblyBytes. */
  private body: MessageAssembly | null = null;
  private answered = false;

  constructor(id: number, head: RequestHead, owner: GrpcConnection, handler: HttpHandler) {
    super(id, head);
    this.owner = owner;
    this.handler = handler;
  }

  override onOpen(): void {
    if (this.remoteClosed) this.handle();
  }

  override onData(buffer: Buffer, start: number, end: number, endStream: boolean): void {
    if (this.answered) return;
    if (end > start) {
      const bytes = end - start;
      const { owner } = this;
      if ((this.body?.bytes ?? 0) + bytes > grpcLimits.httpBodyBytesMax) {
        this.respond(413, plainText, Buffer.from('request body too large\n'));
        return;
      }
      if (owner.assemblyBytes + bytes > owner.assemblyBytesMax) {
        this.respond(503, plainText, Buffer.from('too many bytes of incomplete requests on this connection\n'));
        return;
      }
      this.body ??= new MessageAssembly();
      this.body.append(buffer, start, end);
      owner.assemblyBytes += bytes;
    }
    if (endStream) this.handle();
    else this.owner.replenish(this);
  }

  override onTrailers(): void {
    if (!this.answered) this.handle();
  }

  override onReset(): void {
    this.answered = true;
    this.takeBody();
  }

  override onWritable(): void {}

  private handle(): void {
    const headers: Record<string, string> = Object.create(null);
    if (this.head.authority !== '') headers['host'] = this.head.authority;
    for (const { name, value } of this.head.fields) {
      const before = headers[name];
      headers[name] = before === undefined ? value : `${before}, ${value}`;
    }
    const body = this.takeBody();
    const request = { method: this.head.method, path: this.head.path, headers };
    this.handler(request, body, (status, fields, content) => this.respond(status, fields, content));
  }

  /** What has come of the body; it is not held here any more. */
  private takeBody(): Buffer {
    const { body } = this;
    if (body === null) return EMPTY;
    this.body = null;
    this.owner.assemblyBytes -= body.bytes;
    return body.buffer.subarray(body.start, body.end);
  }

  private respond(status: number, headers: Readonly<Record<string, string>>, body: Buffer): void {
    if (this.answered) return;
    this.answered = true;
    this.takeBody();
    const fields = [{ name: ':status', value: String(status) }];
    for (const [name, value] of Object.entries(headers)) fields.push({ name: name.toLowerCase(), value });
    // RFC 9110, 8.6: the answer to HEAD names the length that GET's body would have.
    fields.push({ name: 'content-length', value: String(body.length) });
    const content = this.head.method === 'HEAD' ? null : body;
    this.owner.answerWhole(this, new HeaderBlock(fields), content);
  }
}
