// etcd's `msgappv2` stream (etcdserver/api/rafthttp/msgappv2_codec.go): the appends of a leader to one follower. An append that follows
// the one before it in index and term is sent as its entries alone; sender and receiver keep where they are.
//
//   link heartbeat   0  00
//   entries          0  01
//                    1  number of entries, 8 bytes (all numbers are big-endian)
//                    9  length of the first entry, 8 bytes
//                   17  raftpb.Entry          ... length and entry for each
//                    x  commit index, 8 bytes
//   message          0  02
//                    1  length of the message, 8 bytes
//                    9  raftpb.Message
//
// Where they are is (term, index), (0, 0) at the start of a connection. A message sets it to its term and to the index of its last entry,
// or to its own index when it has none; an entry moves the index by one. `entries` stands for the MsgApp of that term whose index is
// that index and whose logTerm is that term. So a leader's first append of a term goes as a message, and after a lost or reordered
// append the next one, too.
//
// Stricter than etcd's decoder: the entries' own indexes must be those that the position says.

import { assert } from '../base/assert.ts';
import type { SplicedWriter } from '../base/spliced-writer.ts';
import { peerMessageBytesMax, peerMessageEntriesMax, peerSpliceBytesMin, raftPositionMax } from '../cluster-limits.ts';
import { type Entry, type Message, MessageType, type NodeId, newMessage } from '../raft/types.ts';
import {
  appendFrameNumber,
  appendMessage,
  frameNumberBytes,
  messageMalformed,
  messageTooLong,
  readFrameNumber,
  type StreamEncoder,
} from './message-stream.ts';
import { PartDecoder } from './part-decoder.ts';
import {
  decodeEntry,
  decodeMessage,
  encodedEntryBytes,
  isLinkHeartbeat,
  writeEntry,
  writeEntryHead,
} from './raft-message.ts';

const FrameKind = { linkHeartbeat: 0, entries: 1, message: 2 } as const;

export class AppendStreamEncoder implements StreamEncoder {
  #term = 0;
  #index = 0;

  /** Hot by its entries. */
  encode(message: Message, out: SplicedWriter): void {
    const { entries } = message;
    if (message.type === MessageType.app && this.#continues(message)) {
      out.byte(FrameKind.entries);
      appendFrameNumber(entries.length, out);
      for (let i = 0; i < entries.length; i++) this.#encodeEntry(entries[i]!, out);
      appendFrameNumber(message.commit, out);
      this.#index += entries.length;
      return;
    }
    assert(!isLinkHeartbeat(message), 'a link heartbeat has its own frame');
    out.byte(FrameKind.message);
    appendMessage(message, out);
    this.#term = message.term;
    this.#index = lastIndex(message);
  }

  heartbeat(out: SplicedWriter): void {
    out.byte(FrameKind.linkHeartbeat);
  }

  #continues(message: Message): boolean {
    return message.index === this.#index && message.logTerm === this.#term && message.term === this.#term;
  }

  #encodeEntry(entry: Entry, out: SplicedWriter): void {
    const byteCount = encodedEntryBytes(entry);
    appendFrameNumber(byteCount, out);
    const { data } = entry;
    const isSpliced = data.length >= peerSpliceBytesMin;
    const ownBytes = isSpliced ? byteCount - data.length : byteCount;
    out.reserve(ownBytes);
    const end = isSpliced ? writeEntryHead(entry, out.bytes, out.length) : writeEntry(entry, out.bytes, out.length);
    assert(end === out.length + ownBytes, 'an entry is as long as announced');
    out.length = end;
    if (isSpliced) out.splice(data);
  }
}

function lastIndex(message: Message): number {
  const { entries } = message;
  return entries.length === 0 ? message.index : entries[entries.length - 1]!.index;
}

const Part = { kind: 0, messageLength: 1, message: 2, entryCount: 3, entryLength: 4, entry: 5, commit: 6 } as const;
type Part = (typeof Part)[keyof typeof Part];

export class AppendStreamDecoder extends PartDecoder {
  readonly #local: NodeId;
  readonly #remote: NodeId;
  readonly #bytesMax: number;
  #part: Part = Part.kind;
  #term = 0;
  #index = 0;
  /** Of the frame of entries that is being read. */
  #entries: Entry[] = [];
  #entryCount = 0;
  #entriesBytes = 0;

  /** What `remote` sends to `local`. */
  constructor(local: NodeId, remote: NodeId, bytesMax: number = peerMessageBytesMax) {
    super(1);
    this.#local = local;
    this.#remote = remote;
    this.#bytesMax = bytesMax;
  }

  protected isFirstPart(): boolean {
    return this.#part === Part.kind;
  }

  protected takePart(bytes: Buffer, start: number, end: number, visit: (message: Message) => void): void {
    switch (this.#part) {
      case Part.kind:
        this.#takeKind(bytes[start]!);
        return;
      case Part.messageLength: {
        const byteCount = readFrameNumber(bytes, start);
        if (byteCount > this.#bytesMax) this.fail(messageTooLong(byteCount));
        else this.#next(Part.message, byteCount);
        return;
      }
      case Part.message:
        this.#takeMessage(bytes, start, end, visit);
        return;
      case Part.entryCount:
        this.#takeEntryCount(readFrameNumber(bytes, start));
        return;
      case Part.entryLength:
        this.#takeEntryLength(readFrameNumber(bytes, start));
        return;
      case Part.entry:
        this.#takeEntry(bytes, start, end);
        return;
      case Part.commit:
        this.#takeCommit(readFrameNumber(bytes, start), visit);
    }
  }

  #next(part: Part, byteCount: number): void {
    this.#part = part;
    this.expect(byteCount);
  }

  #takeKind(kind: number): void {
    if (kind === FrameKind.entries) this.#next(Part.entryCount, frameNumberBytes);
    else if (kind === FrameKind.message) this.#next(Part.messageLength, frameNumberBytes);
    else if (kind !== FrameKind.linkHeartbeat) this.fail(`frame of the unknown kind ${kind} in an append stream`);
  }

  #takeMessage(bytes: Buffer, start: number, end: number, visit: (message: Message) => void): void {
    this.#next(Part.kind, 1);
    const message = decodeMessage(bytes, start, end);
    if (message === null) {
      this.fail(messageMalformed(end - start));
      return;
    }
    this.#term = message.term;
    this.#index = lastIndex(message);
    if (!isLinkHeartbeat(message)) visit(message);
  }

  #takeEntryCount(count: number): void {
    if (count > peerMessageEntriesMax) {
      this.fail(`an append of ${count} entries is too long`);
      return;
    }
    this.#entries = [];
    this.#entryCount = count;
    this.#entriesBytes = 0;
    this.#next(count === 0 ? Part.commit : Part.entryLength, frameNumberBytes);
  }

  #takeEntryLength(byteCount: number): void {
    this.#entriesBytes += byteCount;
    if (this.#entriesBytes > this.#bytesMax) this.fail(messageTooLong(this.#entriesBytes));
    else this.#next(Part.entry, byteCount);
  }

  #takeEntry(bytes: Buffer, start: number, end: number): void {
    const entry = decodeEntry(bytes, start, end);
    const expected = this.#index + this.#entries.length + 1;
    if (entry === null) {
      this.fail(`a raft entry of ${end - start} bytes is malformed, or has a term or an index beyond 2^52`);
    } else if (entry.index !== expected) {
      this.fail(`entry ${entry.index} in an append stream where entry ${expected} is due`);
    } else {
      const isLast = this.#entries.push(entry) === this.#entryCount;
      this.#next(isLast ? Part.commit : Part.entryLength, frameNumberBytes);
    }
  }

  #takeCommit(commit: number, visit: (message: Message) => void): void {
    this.#next(Part.kind, 1);
    if (commit > raftPositionMax) {
      this.fail(`commit index ${commit} in an append stream`);
      return;
    }
    const message = newMessage(MessageType.app, this.#local);
    message.from = this.#remote;
    message.term = this.#term;
    message.logTerm = this.#term;
    message.index = this.#index;
    message.entries = this.#entries;
    message.commit = commit;
    this.#index += this.#entries.length;
    this.#entries = [];
    visit(message);
  }
}
