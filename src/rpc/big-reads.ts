// Answers that take more than a turn of the event loop (ranges, long lists): each is read a slice at a time, one slice a turn whoever
// it belongs to, so that everybody else is served in between. A unary answer begins with its length: it is held until it is complete,
// then handed to the connection as the client takes it.
//
//   waiting ── there is room ──▶ reading ── complete ──▶ sending ── taken ──▶ gone
//                                   └── cancelled, too large, stalled ──▶ gone
//
// What is held is bounded: requests that wait, with their bytes; readings together (beyond it nothing new begins and only the oldest goes
// on, so that it ends); complete answers that were not taken, of each connection and all together (beyond it nothing new begins and what
// has begun stands still). Since a reading keeps compactions away and an answer keeps memory, neither may stand still for long: one that
// does is ended. Streams hold no answers here, but share the turns (slice-turns.ts).

import { ByteWriter } from '../base/byte-writer.ts';
import type { ServerCall } from '../grpc/call.ts';
import { StatusCode } from '../grpc/status.ts';
import type { BigReadLimits } from '../limits.ts';
import { type EtcdError, messageTooLarge } from '../proto/rpctypes.ts';
import { type ResponseHeaderEncoder, responseHeaderBytesMax } from '../server/response-header.ts';
import { failWith } from './answer.ts';
import { type SliceLine, type SliceTaker, SliceTurns } from './slice-turns.ts';

const EMPTY = Buffer.alloc(0);

/** How much a read may answer: single keys, a page (most end with their first slice), or anything. */
export const ReadSize = { keys: 0, page: 1, any: 2 } as const;
export type ReadSize = (typeof ReadSize)[keyof typeof ReadSize];

/** What is read: mvcc/range-read.ts, apply/txn-read.ts, list-read.ts. */
export interface SlicedRead {
  /** That of the answer's header. */
  readonly headerRevision: number;
  /** Bytes held beside those that were answered: what was collected, its own copies of the request. */
  readonly heldBytes: number;
  /** Of the answer, where it is less than all may have: the read itself holds to it. */
  readonly answerBytesMax?: number;
  /** After step(): why it cannot go on. */
  readonly error?: EtcdError | null;
  /** Appends one slice of the response, without its header; true: that was the last, or `out` is full. */
  step(out: ByteWriter): boolean;
  /** The rest is not wanted. */
  close(): void;
}

/** Told once when a read has its answer or its error, not when it is cancelled; `bytes`: of the answer without its header. */
export type ReadEnded = (error: EtcdError | null, bytes: number) => void;

interface Reading {
  readonly call: ServerCall;
  /** Null once it is complete: what it holds is let go of. */
  read: SlicedRead | null;
  ended: ReadEnded | null;
  readonly connection: Connection;
  /** Of the request that its call keeps. */
  readonly requestBytes: number;
  readonly parts: Buffer[];
  /** Bytes in `parts`. */
  bytes: number;
  /** What it counts for in `assembledBytes`, or, once it is complete, in `sendingBytes`. */
  heldBytes: number;
  /** When it had its last slice, or the client took its last part. */
  movedMs: number;
}

interface Waiting {
  readonly call: ServerCall;
  readonly size: ReadSize;
  readonly requestBytes: number;
  readonly begin: () => void;
}

/** One that has reads here, or requests that wait. */
interface Connection {
  readonly id: number;
  /** Reading and sending. */
  reads: number;
  sendingBytes: number;
  /** Of the requests that wait. */
  waitingBytes: number;
  /** Too much of its answers was not sent: nothing begins until it has room. */
  isBehind: boolean;
  /** Oldest first. */
  readonly waiting: Set<Waiting>;
}

export interface BigReadsClock {
  /** Runs a callback in a later turn. */
  readonly schedule: (run: () => void) => void;
  readonly setTimer: (delayMs: number, callback: () => void) => unknown;
  readonly nowMs: () => number;
}

export class BigReads implements SliceTaker {
  readonly limits: BigReadLimits;
  private readonly header: ResponseHeaderEncoder;
  private readonly clock: BigReadsClock;
  /** Streams have a line of their own here. */
  readonly turns: SliceTurns;
  private readonly line: SliceLine;
  /** Oldest first. */
  private readonly readings = new Set<Reading>();
  /** Where their turn is: an iterator of a Set sees what is added and removed behind its back. */
  private turn: Iterator<Reading, undefined> = this.readings.values();
  private readonly sendings = new Set<Reading>();
  private readonly connections = new Map<number, Connection>();
  /** Those with requests that wait and room of their own for one. */
  private readonly ready = new Set<Connection>();
  /** What this turn has read, in slices: beyond one the rest waits for the next. */
  private spent = 0;
  /** The next turn is the readings', if they have something to do. */
  private readsNext = false;
  /** One that has waited begins: its turn has come. */
  private isBeginning = false;
  private waitingCount = 0;
  private waitingBytes = 0;
  private assembledBytes = 0;
  /** Of all connections. */
  private sendingBytes = 0;
  private timed = false;
  private readonly body: ByteWriter;

  constructor(limits: BigReadLimits, header: ResponseHeaderEncoder, clock: BigReadsClock) {
    this.limits = limits;
    this.header = header;
    this.clock = clock;
    this.turns = new SliceTurns(clock.schedule);
    this.line = this.turns.newLine();
    this.body = new ByteWriter(65536, limits.answerBytesMax);
  }

  /** Whether a read has to wait before it begins: this turn has read enough, or not enough was read, taken or sent of what was asked
   * for before. Pages are answered whatever others read, and whatever waits to be taken; single keys wait for what is to be sent alone. */
  mustWait(call: ServerCall, size: ReadSize, requestBytes: number): boolean {
    if (call.connectionBufferedBytes > this.limits.unsentBytesMax) return true;
    if (size === ReadSize.keys) return false;
    const connection = this.connections.get(call.connection.id);
    if (size === ReadSize.any && (this.isUnread || this.isCrowded)) return true;
    if (this.isTurnSpent && this.hasPlace(connection, requestBytes)) return true;
    if (connection === undefined) return false;
    if (connection.reads >= this.limits.connectionReadsMax) return true;
    return size === ReadSize.any && connection.sendingBytes > this.limits.sendingBytesMax;
  }

  /** Others come first. Not while what waits may not begin. */
  private get isTurnSpent(): boolean {
    if (this.isBeginning || this.isUnread || this.isCrowded) return false;
    return this.spent >= 1 || this.ready.size > 0;
  }

  /** A read has done a slice, or all of it, in this turn. */
  spend(keys: number, bytes: number): void {
    const { slice } = this.limits;
    this.spent += Math.max(Math.max(keys, 1) / slice.keys, bytes / slice.bytes);
    this.wake();
  }

  /** Calls `begin` when the read need not wait any more; never, if its call ends before, or too many wait: then it fails. Meanwhile
   * it holds `requestBytes`: of the copy of the request that call and `begin` share. */
  wait(call: ServerCall, size: ReadSize, requestBytes: number, begin: () => void): void {
    const connection = this.connectionOf(call);
    if (!this.hasPlace(connection, requestBytes)) {
      this.settle(connection);
      failWith(call, tooManyWait);
      return;
    }
    const waiting = { call, size, requestBytes, begin };
    connection.waiting.add(waiting);
    connection.waitingBytes += requestBytes;
    this.waitingCount++;
    this.waitingBytes += requestBytes;
    call.onEnd = () => this.leaveWaiting(connection, waiting);
    this.lookBehind(connection, call);
    this.settle(connection);
  }

  /** Whether too much of the connection was not sent; then it is told when that has changed. */
  private lookBehind(connection: Connection, call: ServerCall): boolean {
    if (connection.isBehind || call.connectionBufferedBytes <= this.limits.unsentBytesMax) return connection.isBehind;
    connection.isBehind = true;
    call.whenRoom(() => {
      connection.isBehind = false;
      if (this.connections.get(connection.id) === connection) this.settle(connection);
    });
    return true;
  }

  /** Goes on with a read, whose first slice is in `first`; `requestBytes`: of the copy of the request that its call keeps. */
  begin(call: ServerCall, requestBytes: number, read: SlicedRead, first: ByteWriter, ended: ReadEnded): void {
    const connection = this.connectionOf(call);
    const movedMs = this.clock.nowMs();
    const reading: Reading = {
      call,
      read,
      ended,
      connection,
      requestBytes,
      parts: [],
      bytes: 0,
      heldBytes: 0,
      movedMs,
    };
    call.onEnd = () => this.drop(reading);
    this.readings.add(reading);
    connection.reads++;
    this.settle(connection);
    this.take(reading, first);
    this.wake();
    this.watchStalls();
  }

  /** Reads and requests that are here, and the bytes that they hold. */
  get load(): { readonly reads: number; readonly waiting: number; readonly bytes: number } {
    const reads = this.readings.size + this.sendings.size;
    const bytes = this.waitingBytes + this.assembledBytes + this.sendingBytes;
    return { reads, waiting: this.waitingCount, bytes };
  }

  private connectionOf(call: ServerCall): Connection {
    const { id } = call.connection;
    let connection = this.connections.get(id);
    if (connection === undefined) {
      connection = { id, reads: 0, sendingBytes: 0, waitingBytes: 0, isBehind: false, waiting: new Set() };
      this.connections.set(id, connection);
    }
    return connection;
  }

  private hasPlace(connection: Connection | undefined, requestBytes: number): boolean {
    const { limits } = this;
    if (this.waitingCount >= limits.waitingMax || this.waitingBytes + requestBytes > limits.waitingBytesMax)
      return false;
    if (connection === undefined) return true;
    if (connection.waiting.size >= limits.connectionWaitingMax) return false;
    return connection.waitingBytes + requestBytes <= limits.connectionWaitingBytesMax;
  }

  private leaveWaiting(connection: Connection, waiting: Waiting): void {
    waiting.call.onEnd = null;
    connection.waiting.delete(waiting);
    connection.waitingBytes -= waiting.requestBytes;
    this.waitingCount--;
    this.waitingBytes -= waiting.requestBytes;
    this.settle(connection);
  }

  /** After what it holds, or what waits, has changed. */
  private settle(connection: Connection): void {
    const { id, reads, sendingBytes, waiting } = connection;
    const { connectionReadsMax, sendingBytesMax } = this.limits;
    const hasRoom = !connection.isBehind && reads < connectionReadsMax && sendingBytes <= sendingBytesMax;
    if (hasRoom && waiting.size > 0) this.ready.add(connection);
    else this.ready.delete(connection);
    if (reads === 0 && waiting.size === 0) this.connections.delete(id);
    // Also for the readings of this connection, and of all others.
    if (this.ready.size > 0 || this.readings.size > 0) this.wake();
  }

  /** All connections together hold too much that was not taken. */
  private get isUnread(): boolean {
    return this.sendingBytes > this.limits.unreadBytesMax;
  }

  /** What is read holds too much, all together: there are readings then. */
  private get isCrowded(): boolean {
    return this.assembledBytes > this.limits.assembledBytesMax;
  }

  private wake(): void {
    this.line.enter(this);
  }

  /** One slice: of one read, or as many small reads as it takes. */
  takeTurn(): boolean {
    this.spent = 0;
    // By turns: neither those that wait nor those that are read keep the others from going on.
    this.readsNext = !this.readsNext;
    const done = this.readsNext ? this.readOn() || this.beginWaiting() : this.beginWaiting() || this.readOn();
    if (done) this.wake();
    return done;
  }

  /** False: none of the readings may go on. */
  private readOn(): boolean {
    const reading = this.isUnread ? null : this.choose();
    if (reading !== null) this.step(reading);
    return reading !== null;
  }

  /** False: none of those that wait may begin. */
  private beginWaiting(): boolean {
    let begun = 0;
    for (const connection of this.ready) {
      const [waiting] = connection.waiting;
      if (waiting!.size === ReadSize.any && (this.isUnread || this.isCrowded)) continue;
      // To the end of the line, if more of it wait.
      this.ready.delete(connection);
      if (this.lookBehind(connection, waiting!.call)) continue;
      this.leaveWaiting(connection, waiting!);
      this.isBeginning = true;
      waiting!.begin();
      this.isBeginning = false;
      if (waiting!.size === ReadSize.keys) this.spent += 1 / this.limits.slice.keys;
      begun++;
      if (this.spent >= 1) break;
    }
    return begun > 0;
  }

  /** In turn; the oldest when too much is held. Null: none may go on now. Few are passed over: the connections that hold up theirs
   * have each more than sendingBytesMax of the unreadBytesMax. */
  private choose(): Reading | null {
    const { readings, limits } = this;
    if (this.isCrowded) {
      for (const reading of readings) if (reading.connection.sendingBytes <= limits.sendingBytesMax) return reading;
      return null;
    }
    for (let left = readings.size; left > 0; left--) {
      const reading = this.nextInTurn();
      if (reading.connection.sendingBytes <= limits.sendingBytesMax) return reading;
    }
    return null;
  }

  private nextInTurn(): Reading {
    let { value } = this.turn.next();
    if (value === undefined) {
      this.turn = this.readings.values();
      value = this.turn.next().value;
    }
    return value!;
  }

  private step(reading: Reading): void {
    const { body, limits } = this;
    const { call, read } = reading;
    if (call.ended) {
      this.drop(reading);
      return;
    }
    body.reset();
    reading.movedMs = this.clock.nowMs();
    const done = read!.step(body);
    const error = read!.error ?? null;
    if (error !== null) {
      this.giveUp(reading, error);
      return;
    }
    this.take(reading, body);
    const isTooLarge = body.full || responseHeaderBytesMax + reading.bytes > limits.answerBytesMax;
    if (isTooLarge) {
      this.giveUp(reading, messageTooLarge(read!.answerBytesMax ?? limits.answerBytesMax));
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
    const heldBytes = reading.bytes + reading.read!.heldBytes + reading.requestBytes;
    this.assembledBytes += heldBytes - reading.heldBytes;
    reading.heldBytes = heldBytes;
  }

  private send(reading: Reading): void {
    const { call, read, connection, parts, ended } = reading;
    this.leaveReadings(reading);
    this.sendings.add(reading);
    this.holdSending(reading, reading.bytes + reading.requestBytes);
    const head = Buffer.allocUnsafeSlow(responseHeaderBytesMax);
    parts.unshift(head.subarray(0, this.header.write(head, 0, read!.headerRevision)));
    ended!(null, reading.bytes);
    reading.read = reading.ended = null;
    let part = 0;
    call.onEnd = () => this.release(reading);
    call.respondPulled(reading.bytes + parts[0]!.length, parts.at(-1)!, () => {
      const taken = parts[part]!;
      parts[part] = EMPTY;
      reading.movedMs = this.clock.nowMs();
      // The header is nobody's.
      if (part > 0) this.holdSending(reading, reading.heldBytes - taken.length);
      part++;
      if (part === parts.length) this.release(reading);
      else this.settle(connection);
      return taken;
    });
  }

  private holdSending(reading: Reading, heldBytes: number): void {
    const change = heldBytes - reading.heldBytes;
    reading.heldBytes = heldBytes;
    reading.connection.sendingBytes += change;
    this.sendingBytes += change;
  }

  private leaveReadings(reading: Reading): void {
    if (!this.readings.delete(reading)) return;
    this.assembledBytes -= reading.heldBytes;
    reading.heldBytes = 0;
  }

  /** A read that is not wanted any more. */
  private drop(reading: Reading): void {
    reading.read?.close();
    this.leaveReadings(reading);
    this.release(reading);
  }

  /** All of it was handed over, or is not wanted. */
  private release(reading: Reading): void {
    const { call, connection, parts } = reading;
    call.onEnd = null;
    this.sendings.delete(reading);
    this.holdSending(reading, 0);
    parts.length = 0;
    connection.reads--;
    this.settle(connection);
  }

  /** Ends it with an error, whether it is read or sent. */
  private giveUp(reading: Reading, error: EtcdError): void {
    const { call, ended } = reading;
    this.drop(reading);
    failWith(call, error);
    // Null: it was told of its answer.
    if (ended !== null) ended(error, 0);
  }

  private watchStalls(): void {
    if (this.timed || this.readings.size + this.sendings.size === 0) return;
    this.timed = true;
    this.clock.setTimer(this.limits.lookMs, this.look);
  }

  /** Ends what stands still for too long, and, while too much was not taken, that of which nothing is being taken. */
  private readonly look = (): void => {
    this.timed = false;
    const { limits, readings, sendings } = this;
    const nowMs = this.clock.nowMs();
    for (const reading of readings) if (nowMs - reading.movedMs >= limits.stallMs) this.giveUp(reading, readingStalled);
    for (const sending of sendings) if (nowMs - sending.movedMs >= limits.stallMs) this.giveUp(sending, sendingStalled);
    if (this.isUnread) {
      const idle = [...sendings].filter(({ movedMs }) => nowMs - movedMs >= limits.idleMs);
      idle.sort((a, b) => a.movedMs - b.movedMs);
      for (const sending of idle) if (this.isUnread) this.giveUp(sending, tooMuchUnread);
    }
    this.watchStalls();
  };
}

const tooManyWait: EtcdError = {
  code: StatusCode.resourceExhausted,
  message: 'keelson: too many requests for large answers wait already',
};
const readingStalled: EtcdError = {
  code: StatusCode.aborted,
  message: 'keelson: the read stood still for too long, because earlier answers were not taken',
};
const sendingStalled: EtcdError = {
  code: StatusCode.aborted,
  message: 'keelson: the answer was not taken in time',
};
const tooMuchUnread: EtcdError = {
  code: StatusCode.resourceExhausted,
  message: 'keelson: too much memory is held by answers that are not taken, of which this is one',
};
