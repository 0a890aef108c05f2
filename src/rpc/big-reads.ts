// Answers that take more than a turn of the event loop (ranges, long lists): each is read a slice at a time, one slice a turn whoever it belongs to, so that
// everybody else is served in between. A unary answer begins with its length: it is held until it is complete, then handed to
// the connection as the client takes it.
//
//   waiting ── the connection holds little ──▶ reading ── complete ──▶ sending ── taken ──▶ gone
//                                                 └── cancelled, too large ──▶ gone
//
// What is held is bounded: readings together (beyond it only the oldest goes on, so that it ends), and of each connection the
// answers that it has not taken (beyond it its others wait).

import { ByteWriter } from '../base/byte-writer.ts';
import type { ServerCall } from '../grpc/call.ts';
import type { BigReadLimits } from '../limits.ts';
import { type EtcdError, messageTooLarge } from '../proto/rpctypes.ts';
import { type ResponseHeaderEncoder, responseHeaderBytesMax } from '../server/response-header.ts';
import { failWith } from './answer.ts';

const EMPTY = Buffer.alloc(0);

/** What is read: mvcc/range-read.ts, list-read.ts. */
export interface SlicedRead {
  /** That of the answer's header. */
  readonly headerRevision: number;
  /** Bytes held beside those that were answered. */
  readonly heldBytes: number;
  /** Appends one slice of the response, without its header; true: that was the last, or `out` is full. */
  step(out: ByteWriter): boolean;
  /** The rest is not wanted. */
  close(): void;
}

/** Told once when a read has its answer or its error, not when it is cancelled; `bytes`: of the answer without its header. */
export type ReadEnded = (error: EtcdError | null, bytes: number) => void;

interface Reading {
  readonly call: ServerCall;
  readonly read: SlicedRead;
  readonly ended: ReadEnded;
  readonly parts: Buffer[];
  /** Bytes in `parts`. */
  bytes: number;
  /** What it counts for in `assembledBytes`, or, once it is complete, in its connection's `sendingBytes`. */
  heldBytes: number;
}

interface Waiting {
  readonly call: ServerCall;
  readonly begin: () => void;
}

/** Of a connection that has reads here. */
interface Held {
  reads: number;
  sendingBytes: number;
}

export class BigReads {
  private readonly limits: BigReadLimits;
  private readonly header: ResponseHeaderEncoder;
  private readonly schedule: (run: () => void) => void;
  /** Oldest first. */
  private readings: Reading[] = [];
  private waiting: Waiting[] = [];
  private readonly byConnection = new Map<number, Held>();
  private assembledBytes = 0;
  private next = 0;
  private scheduled = false;
  private readonly body: ByteWriter;

  constructor(limits: BigReadLimits, header: ResponseHeaderEncoder, schedule: (run: () => void) => void) {
    this.limits = limits;
    this.header = header;
    this.schedule = schedule;
    this.body = new ByteWriter(65536, limits.answerBytesMax);
  }

  /** Whether a read has to wait before it begins: its connection has not taken enough of what it asked for before. A page (which
   * ends with its first slice, if its values are not large) is answered whatever waits to be sent. */
  mustWait(call: ServerCall, isPage: boolean): boolean {
    if (this.byConnection.size === 0) return false;
    const held = this.byConnection.get(call.connection.id);
    if (held === undefined) return false;
    if (held.reads >= this.limits.connectionReadsMax) return true;
    return !isPage && held.sendingBytes > this.limits.sendingBytesMax;
  }

  /** Calls `begin` when the read need not wait any more; never, if its call ends before. */
  wait(call: ServerCall, begin: () => void): void {
    const waiting = { call, begin };
    this.waiting.push(waiting);
    call.onCancel = () => {
      this.waiting = this.waiting.filter((other) => other !== waiting);
    };
  }

  /** Goes on with a read, whose first slice is in `first`. */
  begin(call: ServerCall, read: SlicedRead, first: ByteWriter, ended: ReadEnded): void {
    const reading: Reading = { call, read, ended, parts: [], bytes: 0, heldBytes: 0 };
    call.onCancel = () => this.drop(reading);
    this.readings.push(reading);
    this.heldOf(call).reads++;
    this.take(reading, first);
    this.wake();
  }

  /** Reads and requests that are here, and the bytes that they hold. */
  get load(): { readonly reads: number; readonly waiting: number; readonly bytes: number } {
    let reads = 0;
    let bytes = this.assembledBytes;
    for (const held of this.byConnection.values()) {
      reads += held.reads;
      bytes += held.sendingBytes;
    }
    return { reads, waiting: this.waiting.length, bytes };
  }

  private heldOf(call: ServerCall): Held {
    let held = this.byConnection.get(call.connection.id);
    if (held === undefined) {
      held = { reads: 0, sendingBytes: 0 };
      this.byConnection.set(call.connection.id, held);
    }
    return held;
  }

  private wake(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    this.schedule(this.run);
  }

  /** One slice, of one read. */
  private readonly run = (): void => {
    this.scheduled = false;
    const waiting = this.waiting.findIndex(({ call }) => this.hasRoom(call));
    if (waiting !== -1) {
      const [{ call, begin }] = this.waiting.splice(waiting, 1) as [Waiting];
      call.onCancel = null;
      begin();
      this.wake();
      return;
    }
    const reading = this.choose();
    if (reading === null) return;
    this.step(reading);
    this.wake();
  };

  private hasRoom(call: ServerCall): boolean {
    const held = this.byConnection.get(call.connection.id);
    if (held === undefined) return true;
    return held.reads < this.limits.connectionReadsMax && held.sendingBytes <= this.limits.sendingBytesMax;
  }

  /** In turn; the oldest when too much is held. Null: none may go on now. */
  private choose(): Reading | null {
    const { readings, limits } = this;
    const isTight = this.assembledBytes > limits.assembledBytesMax;
    for (let i = 0; i < readings.length; i++) {
      if (!isTight) this.next = (this.next + 1) % readings.length;
      const reading = readings[isTight ? i : this.next]!;
      if (this.heldOf(reading.call).sendingBytes <= limits.sendingBytesMax) return reading;
    }
    return null;
  }

  private step(reading: Reading): void {
    const { body, limits } = this;
    const { call, read, ended } = reading;
    if (call.ended) {
      this.drop(reading);
      return;
    }
    body.reset();
    const done = read.step(body);
    this.take(reading, body);
    const isTooLarge = body.full || responseHeaderBytesMax + reading.bytes > limits.answerBytesMax;
    if (isTooLarge) {
      const error = messageTooLarge(limits.answerBytesMax);
      call.onCancel = null;
      this.drop(reading);
      failWith(call, error);
      ended(error, 0);
    } else if (done) this.send(reading);
  }

  /** Keeps what a slice has brought. */
  private take(reading: Reading, body: ByteWriter): void {
    if (body.length > 0) {
      // As large as it is: the writer's buffer may be twice that, and is used again.
      const part = Buffer.allocUnsafeSlow(body.length);
      body.bytes.copy(part, 0, 0, body.length);
      reading.parts.push(part);
      reading.bytes += part.length;
    }
    const heldBytes = reading.bytes + reading.read.heldBytes;
    this.assembledBytes += heldBytes - reading.heldBytes;
    reading.heldBytes = heldBytes;
  }

  private send(reading: Reading): void {
    const { call, read, parts, ended } = reading;
    this.leaveReadings(reading);
    const held = this.heldOf(call);
    held.sendingBytes += reading.bytes;
    reading.heldBytes = reading.bytes;
    const head = Buffer.allocUnsafeSlow(responseHeaderBytesMax);
    parts.unshift(head.subarray(0, this.header.write(head, 0, read.headerRevision)));
    ended(null, reading.bytes);
    let part = 0;
    call.onCancel = () => this.release(reading);
    call.respondPulled(reading.bytes + parts[0]!.length, parts.at(-1)!, () => {
      const taken = parts[part]!;
      parts[part] = EMPTY;
      // The header is nobody's.
      if (part > 0) {
        held.sendingBytes -= taken.length;
        reading.heldBytes -= taken.length;
      }
      part++;
      if (part === parts.length) this.release(reading);
      return taken;
    });
  }

  private leaveReadings(reading: Reading): void {
    const at = this.readings.indexOf(reading);
    if (at === -1) return;
    this.readings.splice(at, 1);
    if (at <= this.next) this.next = Math.max(0, this.next - 1);
    this.assembledBytes -= reading.heldBytes;
    reading.heldBytes = 0;
  }

  /** A read that is not wanted any more. */
  private drop(reading: Reading): void {
    reading.read.close();
    this.leaveReadings(reading);
    this.release(reading);
  }

  /** All of it was handed over, or is not wanted. */
  private release(reading: Reading): void {
    reading.call.onCancel = null;
    const held = this.heldOf(reading.call);
    held.sendingBytes -= reading.heldBytes;
    reading.heldBytes = 0;
    reading.parts.length = 0;
    held.reads--;
    if (held.reads === 0) this.byConnection.delete(reading.call.connection.id);
    if (this.waiting.length > 0 || this.readings.length > 0) this.wake();
  }
}
