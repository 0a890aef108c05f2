// One length-prefixed message on its way out (message-assembly.ts has the format's table), on either of two ways:
//
//   write…  canWriteMessage: at once, as one DATA frame in the connection's output; the bytes are copied
//   queue…  otherwise: by reference, behind what waits in its stream; and what is compressed
//
// Hot path: see grpc-call.ts. Functions over the writer and the stream, since a call is one object.

import { assert } from '../base/assert.ts';
import { frameHeaderBytes, writeUint32 } from '../http2/frame.ts';
import type { Http2Stream } from '../http2/stream.ts';
import type { Http2Writer } from '../http2/writer.ts';
import { compress } from './compression.ts';
import { messagePrefixBytes } from './message-assembly.ts';

/** Writes a message of at most the room that was asked for at `offset` and returns the offset behind it. */
export type MessageEncoder<T> = (out: Buffer, offset: number, arg: T) => number;

export function canWriteMessage(writer: Http2Writer, stream: Http2Stream, bytes: number): boolean {
  return writer.canWriteData(stream, messagePrefixBytes + bytes);
}

/** Opens the frame of a message of `bytes` and returns where they go in the output's buffer. */
function openMessage(writer: Http2Writer, stream: Http2Stream, bytes: number): number {
  const { output } = writer;
  output.ensure(frameHeaderBytes + messagePrefixBytes + bytes);
  const at = writer.writeDataHeader(stream, messagePrefixBytes + bytes);
  output.buffer[at] = 0;
  writeUint32(output.buffer, at + 1, bytes);
  return at + messagePrefixBytes;
}

export function writeMessage(
  writer: Http2Writer,
  stream: Http2Stream,
  message: Buffer,
  start: number,
  end: number,
): void {
  const at = openMessage(writer, stream, end - start);
  copyBytes(message, start, end, writer.output.buffer, at);
}

/** A message out of several buffers of `bytes` together. */
export function writeParts(writer: Http2Writer, stream: Http2Stream, parts: readonly Buffer[], bytes: number): void {
  let at = openMessage(writer, stream, bytes);
  for (const part of parts) {
    copyBytes(part, 0, part.length, writer.output.buffer, at);
    at += part.length;
  }
}

/** Has the message written where it will be sent from; its length is known only then. Returns it: the output ends with it. */
export function writeEncoded<T>(
  writer: Http2Writer,
  stream: Http2Stream,
  sizeMax: number,
  encode: MessageEncoder<T>,
  arg: T,
): number {
  const { output } = writer;
  output.ensure(frameHeaderBytes + messagePrefixBytes + sizeMax);
  const frameAt = output.end;
  const start = frameAt + frameHeaderBytes + messagePrefixBytes;
  const bytes = encode(output.buffer, start, arg) - start;
  assert(bytes >= 0 && bytes <= sizeMax, 'the answer is no larger than it said');
  assert(output.end === frameAt, 'an encoder writes nothing but its answer');
  const at = openMessage(writer, stream, bytes);
  assert(at === start, 'the message stands behind its prefix');
  return bytes;
}

/** Lets a message of several buffers, `bytes` together, wait its turn. They must not change any more. */
export function queueParts(
  writer: Http2Writer,
  stream: Http2Stream,
  parts: readonly Buffer[],
  bytes: number,
  gzip: boolean,
): void {
  // grpc-go leaves an empty message uncompressed.
  if (gzip && bytes > 0) {
    const packed = compress(parts.length === 1 ? parts[0]! : Buffer.concat(parts));
    queuePrefix(writer, stream, 1, packed.length);
    writer.queue(stream, packed);
    return;
  }
  queuePrefix(writer, stream, 0, bytes);
  for (const part of parts) writer.queue(stream, part);
}

/** The beginning of a message whose `bytes` follow. */
export function queuePrefix(writer: Http2Writer, stream: Http2Stream, flag: 0 | 1, bytes: number): void {
  const prefix = Buffer.allocUnsafe(messagePrefixBytes);
  prefix[0] = flag;
  writeUint32(prefix, 1, bytes);
  writer.queue(stream, prefix);
}

/** Copies like Buffer.copy; a loop is faster for the short messages that most answers are. */
function copyBytes(from: Buffer, start: number, end: number, to: Buffer, at: number): void {
  if (end - start > 64) {
    from.copy(to, at, start, end);
    return;
  }
  for (let i = start, j = at; i < end; i += 1, j += 1) to[j] = from[i]!;
}
