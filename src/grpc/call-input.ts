// The receiving half of a call: the bytes of its DATA frames in, whole messages out, and the window that lets more come. What is
// done with a message is grpc-call.ts's, which extends this: a call is one object. Its fields are declared here and begin there,
// since a constructor of this class would cost each call 4 %.
//
//   DATA ───▶ consume ── each whole message ──▶ deliver
//               │ ▲
//   what is no  ▼ │ more DATA, resumeReceive
//   message yet, or paused: `assembly`, within the connection's assemblyBytesMax
//
//   END_STREAM ──▶ halfClosed ── not paused, everything consumed ──▶ inputFinished: inputEnded, or an error for what is missing
//
// Window: given back as bytes are consumed; a message larger than the window is granted what it lacks (assembly-grants.ts); none
// while paused.

import { readUint32 } from '../http2/frame.ts';
import { Http2Stream } from '../http2/stream.ts';
import type { Grantee } from './assembly-grants.ts';
import type { CallPlan } from './call-plan.ts';
import { decompress } from './compression.ts';
import type { GrpcConnection } from './connection.ts';
import { MessageAssembly, messagePrefixBytes } from './message-assembly.ts';
import type { MethodEntry } from './router.ts';
import { type Status, StatusCode } from './status.ts';

export abstract class CallInput extends Http2Stream implements Grantee {
  abstract readonly method: MethodEntry;
  protected abstract readonly owner: GrpcConnection;
  protected abstract readonly plan: CallPlan;
  /** Over for its handler: nothing more is delivered. */
  abstract ended: boolean;
  /** Whole messages that came. */
  protected abstract messageCount: number;
  abstract grantedBytes: number;
  abstract awaitsGrant: boolean;
  protected abstract paused: boolean;
  protected abstract halfClosed: boolean;
  protected abstract inputFinished: boolean;
  /** Within `consume`: what the handler resumes is delivered by it. */
  protected abstract delivering: boolean;
  /** Null when it would be empty. Its bytes are counted in owner.assemblyBytes. */
  protected abstract assembly: MessageAssembly | null;

  /** One message, buffer[start, end), valid during the call. */
  protected abstract deliver(buffer: Buffer, start: number, end: number): void;
  /** The client has sent its last message, and all were delivered. */
  protected abstract inputEnded(): void;
  /** Ends the call: what came breaks a rule. */
  abstract fail(status: Status): void;

  // --- for the handler ---

  pauseReceive(): void {
    this.paused = true;
  }

  resumeReceive(): void {
    if (!this.paused) return;
    this.paused = false;
    if (this.ended || this.delivering) return;
    this.deliverAssembled();
    this.replenish();
    this.owner.touch();
  }

  // --- the stream's events ---

  override onData(buffer: Buffer, start: number, end: number, endStream: boolean): void {
    if (this.ended) return;
    let from = start;
    if (this.assembly === null && !this.paused) from = this.consume(buffer, start, end);
    if (this.ended) return;
    if (from < end) {
      this.hold(buffer, from, end);
      if (this.assembly !== null && !this.paused) this.deliverAssembled();
      if (this.ended) return;
    }
    if (endStream) this.halfClose();
    else this.replenish();
  }

  override onTrailers(): void {
    if (!this.ended) this.halfClose();
  }

  // --- messages ---

  /** Delivers the whole messages of buffer[from, to) and returns where the rest begins. */
  private consume(buffer: Buffer, from: number, to: number): number {
    const { kind } = this.method;
    let at = from;
    this.delivering = true;
    while (to - at >= messagePrefixBytes && !this.paused) {
      // As grpc-go: a unary call takes its first message and looks at nothing behind it.
      if (kind === 'unary' && this.messageCount > 0) at = to;
      if (at === to) break;
      const length = readUint32(buffer, at + 1);
      if (length > this.owner.messageBytesMax) {
        const text = `grpc: received message larger than max (${length} vs. ${this.owner.messageBytesMax})`;
        this.fail({ code: StatusCode.resourceExhausted, message: text });
        break;
      }
      const start = at + messagePrefixBytes;
      const end = start + length;
      if (end > to) break;
      if (kind === 'server') {
        if (end < to || this.messageCount > 0) {
          const text = 'cardinality violation: received multiple request messages for non-client-streaming RPC';
          this.fail({ code: StatusCode.internal, message: text });
          break;
        }
        if (!this.remoteClosed) break;
      }
      at = end;
      this.messageCount += 1;
      if (buffer[start - messagePrefixBytes] === 0) this.deliver(buffer, start, end);
      else this.deliverFlagged(buffer[start - messagePrefixBytes]!, buffer, start, end);
      if (this.ended) break;
    }
    this.delivering = false;
    return at;
  }

  /** A message whose first byte is not 0. */
  private deliverFlagged(flag: number, buffer: Buffer, start: number, end: number): void {
    if (flag !== 1) {
      const message = `grpc: received unexpected payload format ${flag}`;
      this.fail({ code: StatusCode.internal, message });
      return;
    }
    if (!this.plan.gzip) {
      const message = 'grpc: compressed flag set with identity or empty encoding';
      this.fail({ code: StatusCode.internal, message });
      return;
    }
    const plain = decompress(buffer, start, end, this.owner.messageBytesMax);
    if (Buffer.isBuffer(plain)) this.deliver(plain, 0, plain.length);
    else this.fail(plain);
  }

  /** Keeps bytes for later, within the connection's bound. */
  private hold(buffer: Buffer, start: number, end: number): void {
    const { owner } = this;
    if (owner.assemblyBytes + end - start > owner.assemblyBytesMax) {
      const message = 'keelson: too many bytes of incomplete messages on this connection';
      this.fail({ code: StatusCode.resourceExhausted, message });
      return;
    }
    this.assembly ??= new MessageAssembly();
    this.assembly.append(buffer, start, end);
    owner.assemblyBytes += end - start;
  }

  private deliverAssembled(): void {
    const { assembly, owner } = this;
    if (assembly !== null) {
      const from = assembly.start;
      const at = this.consume(assembly.buffer, from, assembly.end);
      // dropInput() has settled the account when the call ended meanwhile.
      if (this.ended) {
        assembly.release();
        return;
      }
      assembly.start = at;
      owner.assemblyBytes -= at - from;
      if (assembly.bytes === 0) {
        assembly.release();
        this.assembly = null;
      }
      if (at > from && this.grantedBytes > 0) owner.grants.release(this);
    }
    if (this.halfClosed && !this.paused) this.finishInput();
  }

  /** END_STREAM has come. */
  protected halfClose(): void {
    this.halfClosed = true;
    if (!this.paused) this.deliverAssembled();
  }

  /** Everything that the client sent was delivered, or can never be. */
  private finishInput(): void {
    if (this.inputFinished) return;
    this.inputFinished = true;
    const { kind } = this.method;
    // As grpc-go: a part of a prefix is no message, a part of a message is an error.
    if (this.assembly !== null && this.assembly.bytes >= messagePrefixBytes) {
      // grpc-go: a unary handler never ran, so the bare error goes out; a stream's RecvMsg wraps it.
      const code = kind === 'unary' ? StatusCode.unknown : StatusCode.internal;
      this.fail({ code, message: 'unexpected EOF' });
      return;
    }
    if (this.messageCount === 0 && kind === 'unary') {
      this.fail({ code: StatusCode.unknown, message: 'EOF' });
      return;
    }
    if (this.messageCount === 0 && kind === 'server') {
      const text = 'cardinality violation: received no request message from non-client-streaming RPC';
      this.fail({ code: StatusCode.internal, message: text });
      return;
    }
    this.inputEnded();
  }

  /** The call is over: what it held is not wanted. */
  protected dropInput(): void {
    if (this.assembly !== null) {
      this.owner.assemblyBytes -= this.assembly.bytes;
      // Within `consume` the handler still looks at a message in it: whoever called that releases it.
      if (!this.delivering) this.assembly.release();
      this.assembly = null;
    }
    if (this.grantedBytes > 0 || this.awaitsGrant) this.owner.grants.leave(this);
  }

  // --- window ---

  /** Lets the client send on. */
  private replenish(): void {
    if (this.paused || this.ended || this.remoteClosed || this.closed) return;
    // Nothing behind a unary call's message is wanted.
    if (this.messageCount > 0 && this.method.kind === 'unary') return;
    const missing = this.assembly === null ? 0 : this.assembly.missing;
    if (missing > this.receiveWindow) this.owner.grants.request(this);
    else if (this.assembly === null || missing > 0) this.owner.replenish(this);
  }

  wantedGrant(): number {
    if (this.paused || this.ended || this.remoteClosed || this.closed || this.assembly === null) return 0;
    return Math.max(0, this.assembly.missing - this.receiveWindow);
  }

  takeGrant(bytes: number): boolean {
    this.owner.touch();
    this.assembly!.expectWhole(this.owner.messagePool);
    this.owner.http2.grant(this, bytes);
    return true;
  }
}
