// A stream that we send to another member: the answer to its GET, which does not end. What is appended to `output` in a turn goes
// out by flush() as one chunk in one socket write, head and all: the head's bytes are kept free before the payload. Large parts of it are
// not copied into the buffer but written with what is around them (base/spliced-writer.ts), by one writev.
//
//   bytes  | of the buffer
//   0..9   | the chunk's size in hexadecimal and CR LF, right-aligned
//   10..n  | the payload
//   n..n+1 | CR LF
//
// Why not response.write(): it makes three writes of one and corks them; and nobody could see how much the kernel has not taken.

import type { Socket } from 'node:net';
import { SplicedWriter } from '../base/spliced-writer.ts';
import {
  peerOutputBytesInitial,
  peerOutputBytesKept,
  peerUnsentBytesMax,
  peerUnsentWritesMax,
} from '../cluster-limits.ts';

const headBytes = 10;
/** How long the other end has to take the last words before the connection is cut. */
const closeGraceMs = 1000;

export class OutgoingStream {
  /** The payload of the next chunk; who fills it appends only. */
  readonly output: SplicedWriter;
  /** The other end closed it, or it broke. Not called after close(). */
  onClosed: ((error: Error | null) => void) | null = null;
  readonly #socket: Socket;
  readonly #written: () => void;
  #error: Error | null = null;
  #pendingWrites = 0;
  #ticksWithoutProgress = 0;
  /** What the kernel had not taken at the last tick. */
  #queuedBytes = 0;
  #isClosed = false;

  /** `head`: the answer's status line and headers, with the empty line. */
  constructor(socket: Socket, head: string) {
    this.#socket = socket;
    this.output = new SplicedWriter(peerOutputBytesInitial);
    this.output.reserve(headBytes);
    this.output.length = headBytes;
    this.#written = (): void => {
      this.#pendingWrites--;
      this.#ticksWithoutProgress = 0;
    };
    socket.setNoDelay(true);
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    socket.once('close', () => this.#ended());
    // A reader sends nothing behind its request: this is its end.
    socket.once('end', () => this.#ended());
    socket.write(head, 'latin1');
  }

  /** Appended and not flushed yet. */
  get unflushedBytes(): number {
    return this.output.length - headBytes + this.output.partsBytes;
  }

  /** As much waits as may: the other end is too slow. Hot. */
  get isFull(): boolean {
    return this.pendingBytes > peerUnsentBytesMax || this.#pendingWrites > peerUnsentWritesMax;
  }

  /** What waits here and in the socket. */
  get pendingBytes(): number {
    return this.unflushedBytes + this.#socket.writableLength;
  }

  /** Hot: once a turn. */
  flush(): void {
    const { output } = this;
    const bytes = this.unflushedBytes;
    if (bytes === 0) return;
    if (this.#isClosed || !this.#socket.writable) {
      output.reset();
      output.length = headBytes;
      return;
    }
    const size = bytes.toString(16);
    const start = headBytes - 2 - size.length;
    output.bytes.write(size, start, 'latin1');
    output.bytes[headBytes - 2] = 13;
    output.bytes[headBytes - 1] = 10;
    output.byte(13);
    output.byte(10);
    this.#pendingWrites++;
    // What is written now will wait, too: in memory of its size, so that pendingBytes is what it costs.
    const waits = this.#socket.writableLength > 0;
    if (output.parts.length > 0) this.#writePieces(output.pieces(start), waits);
    else {
      const chunk = output.bytes.subarray(start, output.length);
      this.#socket.write(waits ? Buffer.from(chunk) : chunk, this.#written);
    }
    // libuv tries to write at once. What it could not keeps the buffer, so the next chunk gets another.
    if (!waits && this.#socket.writableLength > 0) output.bytes = Buffer.allocUnsafeSlow(peerOutputBytesInitial);
    output.release(peerOutputBytesKept);
    output.length = headBytes;
  }

  /** Every second one is a part, in memory of its own already. */
  #writePieces(pieces: readonly Buffer[], waits: boolean): void {
    const socket = this.#socket;
    const last = pieces.length - 1;
    socket.cork();
    for (let i = 0; i <= last; i++) {
      const piece = waits && i % 2 === 0 ? Buffer.from(pieces[i]!) : pieces[i]!;
      if (i < last) socket.write(piece);
      else socket.write(piece, this.#written);
    }
    socket.uncork();
  }

  /** To be called at every tick of the transport: for how many of them bytes wait and the other end has taken none. */
  tick(): number {
    const before = this.#queuedBytes;
    this.#queuedBytes = queuedBytes(this.#socket);
    const isTaken = this.#socket.writableLength === 0 || this.#queuedBytes < before;
    this.#ticksWithoutProgress = isTaken ? 0 : this.#ticksWithoutProgress + 1;
    return this.#ticksWithoutProgress;
  }

  /** Ends the answer in order. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.onClosed = null;
    if (this.#socket.writableLength > 0) {
      this.#socket.destroy();
      return;
    }
    this.#socket.end('0\r\n\r\n', 'latin1');
    setTimeout(() => this.#socket.destroy(), closeGraceMs).unref();
  }

  #ended(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.destroy();
    this.onClosed?.(this.#error);
    this.onClosed = null;
  }
}

/**
 * What of the write under way is left, which may be a turn of many megabytes: the socket itself tells of it when all is taken. By the
 * property that Node's own time-out of sockets looks at.
 */
function queuedBytes(socket: Socket): number {
  const { _handle: handle } = socket as Socket & { readonly _handle?: { readonly writeQueueSize?: number } | null };
  return handle?.writeQueueSize ?? socket.writableLength;
}
