// etcd's `message` stream: messages of every type, each behind its length. So begins the body of a snapshot's post, too; the pipeline's
// posts are a message alone.
//
//   0  length of the message, 8 bytes big-endian
//   8  raftpb.Message
//
// Framing only: who sends which message where is the transport's.

import { assert } from '../base/assert.ts';
import type { ByteWriter } from '../base/byte-writer.ts';
import type { SplicedWriter } from '../base/spliced-writer.ts';
import { peerMessageBytesMax } from '../cluster-limits.ts';
import { type Message, MessageType, NONE, newMessage } from '../raft/types.ts';
import { PartDecoder } from './part-decoder.ts';
import { decodeMessage, encodedMessageBytes, isLinkHeartbeat, writeMessage } from './raft-message.ts';

/** Writes the messages of one connection. */
export interface StreamEncoder {
  /** Appends `message` to `out`, large entries as parts: they must stay as they are. */
  encode(message: Message, out: SplicedWriter): void;
  /** Appends what says that the link is up, and nothing else. */
  heartbeat(out: SplicedWriter): void;
}

/** Of the lengths and numbers in both streams. */
export const frameNumberBytes = 8;
const TWO_32 = 0x100000000;

/** Exact up to 2^53; more is above every bound. */
export function readFrameNumber(buffer: Buffer, at: number): number {
  return buffer.readUInt32BE(at) * TWO_32 + buffer.readUInt32BE(at + 4);
}

export function appendFrameNumber(value: number, out: ByteWriter): void {
  assert(Number.isSafeInteger(value) && value >= 0, 'a number of a frame');
  out.reserve(frameNumberBytes);
  out.bytes.writeUInt32BE(Math.floor(value / TWO_32), out.length);
  out.bytes.writeUInt32BE(value >>> 0, out.length + 4);
  out.length += frameNumberBytes;
}

/** The length, then the message. */
export function appendMessage(message: Message, out: ByteWriter): void {
  const byteCount = encodedMessageBytes(message);
  assert(byteCount <= peerMessageBytesMax, 'a message that no peer takes');
  appendFrameNumber(byteCount, out);
  out.reserve(byteCount);
  const end = writeMessage(message, out.bytes, out.length);
  assert(end === out.length + byteCount, 'a message is as long as announced');
  out.length = end;
}

export function messageTooLong(byteCount: number): string {
  return `a raft message of ${byteCount} bytes is too long`;
}

export function messageMalformed(byteCount: number): string {
  return `a raft message of ${byteCount} bytes is malformed, or has a term or an index beyond 2^52`;
}

const LINK_HEARTBEAT = newMessage(MessageType.heartbeat, NONE);

export class MessageStreamEncoder implements StreamEncoder {
  encode(message: Message, out: ByteWriter): void {
    appendMessage(message, out);
  }

  heartbeat(out: ByteWriter): void {
    appendMessage(LINK_HEARTBEAT, out);
  }
}

export class MessageStreamDecoder extends PartDecoder {
  readonly #bytesMax: number;
  #inMessage = false;

  constructor(bytesMax: number = peerMessageBytesMax) {
    super(frameNumberBytes);
    this.#bytesMax = bytesMax;
  }

  protected isFirstPart(): boolean {
    return !this.#inMessage;
  }

  protected takePart(bytes: Buffer, start: number, end: number, visit: (message: Message) => void): void {
    if (this.#inMessage) {
      this.#inMessage = false;
      this.expect(frameNumberBytes);
      const message = decodeMessage(bytes, start, end);
      if (message === null) this.fail(messageMalformed(end - start));
      else if (!isLinkHeartbeat(message)) visit(message);
      return;
    }
    const byteCount = readFrameNumber(bytes, start);
    if (byteCount > this.#bytesMax) {
      this.fail(messageTooLong(byteCount));
      return;
    }
    this.#inMessage = true;
    this.expect(byteCount);
  }
}
