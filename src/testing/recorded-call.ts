// A ServerCall that records what its handler does with it, for tests of src/rpc without a transport.

import type { ConnectionInfo, ServerCall } from '../grpc/call.ts';
import type { MethodEntry, Router, StreamHandler } from '../grpc/router.ts';
import type { Status } from '../grpc/status.ts';

export class RecordedCall implements ServerCall {
  readonly method: MethodEntry;
  readonly connection: ConnectionInfo = { id: 1, remoteAddress: 'test', localAddress: 'test', tls: null };
  readonly deadlineMs: number = Infinity;
  bufferedBytes = 0;
  connectionBufferedBytes = 0;
  context: unknown = null;
  onDrain: (() => void) | null = null;
  onEnd: (() => void) | null = null;
  ended = false;
  paused = false;
  readonly sent: Buffer[] = [];
  status: Status | { readonly code: 0; readonly message: '' } | null = null;
  private readonly waiting: (() => void)[] = [];
  private readonly held: Buffer[] = [];

  constructor(router: Router, path: string) {
    const method = router.find(path);
    if (method === undefined) throw new Error(`no method ${path}`);
    this.method = method;
  }

  /** Delivers one message to the method's handler, or keeps it while the handler wants none. */
  deliver(message: Buffer): this {
    if (this.paused) {
      this.held.push(message);
      return this;
    }
    if (this.method.unary !== null) this.method.unary(this, message, 0, message.length);
    else this.stream.message(this, message, 0, message.length);
    return this;
  }

  open(): this {
    this.stream.open(this);
    return this;
  }

  get stream(): StreamHandler {
    return this.method.stream!;
  }

  /** Resolves when the call has ended. */
  async finished(): Promise<this> {
    if (!this.ended) await new Promise<void>((resolve) => this.waiting.push(resolve));
    return this;
  }

  metadata(): string | undefined {
    return undefined;
  }

  metadataBytes(): Buffer | undefined {
    return undefined;
  }

  keepRequest(): void {}

  whenRoom(_done: () => void): void {
    throw new Error('nothing waits to be sent');
  }

  respond(message: Buffer, start: number, end: number): void {
    this.sent.push(Buffer.from(message.subarray(start, end)));
    this.end();
  }

  respondWith<T>(sizeMax: number, write: (out: Buffer, offset: number, arg: T) => number, arg: T): void {
    const out = Buffer.alloc(sizeMax);
    this.respond(out, 0, write(out, 0, arg));
  }

  respondPulled(bytes: number, last: Buffer, next: () => Buffer): void {
    const parts: Buffer[] = [];
    for (let left = bytes; left > 0; left -= parts.at(-1)!.length) parts.push(next());
    if (parts.at(-1) !== last) throw new Error('the last part is another one');
    const answer = Buffer.concat(parts);
    this.respond(answer, 0, answer.length);
  }

  fail(status: Status): void {
    if (!this.ended) this.finish(status);
  }

  send(message: Buffer, start: number, end: number): boolean {
    this.sent.push(Buffer.from(message.subarray(start, end)));
    return true;
  }

  sendParts(parts: readonly Buffer[]): boolean {
    this.sent.push(Buffer.concat(parts));
    return true;
  }

  end(): void {
    if (!this.ended) this.finish({ code: 0, message: '' });
  }

  pauseReceive(): void {
    this.paused = true;
  }

  /** Delivers what was held, within the call, as the real one does. */
  resumeReceive(): void {
    this.paused = false;
    while (!this.paused && !this.ended && this.held.length > 0) this.deliver(this.held.shift()!);
  }

  /** The client resets it: there is no status. */
  cancel(): void {
    if (!this.ended) this.finish(null);
  }

  private finish(status: Status | { readonly code: 0; readonly message: '' } | null): void {
    this.ended = true;
    this.status = status;
    const { onEnd } = this;
    this.onDrain = this.onEnd = null;
    onEnd?.();
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}
