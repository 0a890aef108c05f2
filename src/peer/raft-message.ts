// raftpb.Message and what is in it, to and from the types of the raft core: raft.proto of go.etcd.io/raft/v3 v3.7.0 (proto2), which
// etcd's members speak on all their streams. Framing is in message-stream.ts and append-stream.ts.
//
//   Message   1 type   2 to   3 from   4 term   5 logTerm   6 index   7 entries*   8 commit   9 snapshot   10 reject   11 rejectHint
//             12 context   13 vote   (14 responses: between a Go node and its storage threads, skipped)
//   Entry     1 type   2 term   3 index   4 data
//   Snapshot  1 data   2 metadata { 1 conf_state   2 index   3 term }
//   ConfState 1 voters*   2 learners*   3 voters_outgoing*   4 learners_next*   5 auto_leave
//
// Fields are written by ascending number and lists of ids unpacked, as Go's marshaller does. A zero field is left out: etcd reads every
// field by a getter, to which unset and zero are the same (etcd itself sends some zeros, where its code has set a pointer; before 3.7
// all). Read is whatever Go's unmarshaller reads: any order, repeated fields (the last counts, messages are merged), packed lists,
// unknown fields. Refused beyond that: terms and indexes beyond raftPositionMax, types that this release doesn't know, entries of an
// append that are not the ones after its index, more entries than peerMessageEntriesMax.

import { assert } from '../base/assert.ts';
import { peerMessageEntriesMax, raftPositionMax } from '../cluster-limits.ts';
import { bigVarintLength, Reader, varintLength, WireType, writeBigVarint, writeVarint } from '../proto/wire.ts';
import {
  type ConfState,
  EMPTY_CONF_STATE,
  type Entry,
  EntryType,
  type Message,
  MessageType,
  NO_BYTES,
  NONE,
  type NodeId,
  newMessage,
  type Snapshot,
  type SnapshotMeta,
} from '../raft/types.ts';

// --- tags: number * 8 + wire type, one byte each ---

const MessageTag = {
  type: 0x08,
  to: 0x10,
  from: 0x18,
  term: 0x20,
  logTerm: 0x28,
  index: 0x30,
  entries: 0x3a,
  commit: 0x40,
  snapshot: 0x4a,
  reject: 0x50,
  rejectHint: 0x58,
  context: 0x62,
  vote: 0x68,
} as const;
const EntryTag = { type: 0x08, term: 0x10, index: 0x18, data: 0x22 } as const;
const SnapshotTag = { data: 0x0a, meta: 0x12 } as const;
const MetaTag = { confState: 0x0a, index: 0x10, term: 0x18 } as const;
const ConfTag = { voters: 0x08, learners: 0x10, votersOutgoing: 0x18, learnersNext: 0x20, autoLeave: 0x28 } as const;

/** Does nothing in raft: a stream's writer sends it when it has nothing else, so that the reader knows that the link is up. */
export function isLinkHeartbeat(message: Message): boolean {
  return message.type === MessageType.heartbeat && message.from === NONE && message.to === NONE;
}

// --- writing ---

function uintFieldBytes(value: number): number {
  return value === 0 ? 0 : 1 + varintLength(value);
}

function idFieldBytes(id: NodeId): number {
  return id === NONE ? 0 : 1 + bigVarintLength(id);
}

/** Zero for an empty field, which is not written. */
function bytesFieldBytes(length: number): number {
  return length === 0 ? 0 : embeddedBytes(length);
}

function embeddedBytes(length: number): number {
  return 1 + varintLength(length) + length;
}

function writeUintField(out: Buffer, offset: number, tag: number, value: number): number {
  if (value === 0) return offset;
  out[offset++] = tag;
  return writeVarint(out, offset, value);
}

function writeIdField(out: Buffer, offset: number, tag: number, id: NodeId): number {
  if (id === NONE) return offset;
  out[offset++] = tag;
  return writeBigVarint(out, offset, id);
}

function writeBytesField(out: Buffer, offset: number, tag: number, bytes: Buffer): number {
  if (bytes.length === 0) return offset;
  out[offset++] = tag;
  offset = writeVarint(out, offset, bytes.length);
  bytes.copy(out, offset);
  return offset + bytes.length;
}

/** Hot. */
export function encodedEntryBytes(entry: Entry): number {
  return (
    uintFieldBytes(entry.type) +
    uintFieldBytes(entry.term) +
    uintFieldBytes(entry.index) +
    bytesFieldBytes(entry.data.length)
  );
}

/** Writes encodedEntryBytes(); returns the next offset. Hot. */
export function writeEntry(entry: Entry, out: Buffer, offset: number): number {
  offset = writeUintField(out, offset, EntryTag.type, entry.type);
  offset = writeUintField(out, offset, EntryTag.term, entry.term);
  offset = writeUintField(out, offset, EntryTag.index, entry.index);
  return writeBytesField(out, offset, EntryTag.data, entry.data);
}

/** The same but for the data, which are to follow and not empty. */
export function writeEntryHead(entry: Entry, out: Buffer, offset: number): number {
  offset = writeUintField(out, offset, EntryTag.type, entry.type);
  offset = writeUintField(out, offset, EntryTag.term, entry.term);
  offset = writeUintField(out, offset, EntryTag.index, entry.index);
  out[offset++] = EntryTag.data;
  return writeVarint(out, offset, entry.data.length);
}

export function encodedMessageBytes(message: Message): number {
  let bytes =
    uintFieldBytes(message.type) +
    idFieldBytes(message.to) +
    idFieldBytes(message.from) +
    uintFieldBytes(message.term) +
    uintFieldBytes(message.logTerm) +
    uintFieldBytes(message.index) +
    uintFieldBytes(message.commit) +
    (message.reject ? 2 : 0) +
    uintFieldBytes(message.rejectHint) +
    bytesFieldBytes(message.context.length) +
    idFieldBytes(message.vote);
  const { entries, snapshot } = message;
  for (let i = 0; i < entries.length; i++) bytes += embeddedBytes(encodedEntryBytes(entries[i]!));
  if (snapshot !== null) bytes += embeddedBytes(snapshotBytes(snapshot));
  return bytes;
}

/** Writes encodedMessageBytes(); returns the next offset. */
export function writeMessage(message: Message, out: Buffer, offset: number): number {
  const { entries, snapshot } = message;
  offset = writeUintField(out, offset, MessageTag.type, message.type);
  offset = writeIdField(out, offset, MessageTag.to, message.to);
  offset = writeIdField(out, offset, MessageTag.from, message.from);
  offset = writeUintField(out, offset, MessageTag.term, message.term);
  offset = writeUintField(out, offset, MessageTag.logTerm, message.logTerm);
  offset = writeUintField(out, offset, MessageTag.index, message.index);
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i]!;
    out[offset++] = MessageTag.entries;
    offset = writeVarint(out, offset, encodedEntryBytes(entry));
    offset = writeEntry(entry, out, offset);
  }
  offset = writeUintField(out, offset, MessageTag.commit, message.commit);
  if (snapshot !== null) offset = writeSnapshot(snapshot, out, offset);
  if (message.reject) {
    out[offset++] = MessageTag.reject;
    out[offset++] = 1;
  }
  offset = writeUintField(out, offset, MessageTag.rejectHint, message.rejectHint);
  offset = writeBytesField(out, offset, MessageTag.context, message.context);
  return writeIdField(out, offset, MessageTag.vote, message.vote);
}

// Metadata and its configuration are always there, empty or not: Go's code has pointers to them.

function snapshotBytes(snapshot: Snapshot): number {
  return bytesFieldBytes(snapshot.data.length) + embeddedBytes(metaBytes(snapshot.meta));
}

function metaBytes(meta: SnapshotMeta): number {
  return embeddedBytes(confStateBytes(meta.confState)) + uintFieldBytes(meta.index) + uintFieldBytes(meta.term);
}

function idsBytes(ids: readonly NodeId[]): number {
  let bytes = 0;
  for (const id of ids) bytes += 1 + bigVarintLength(id);
  return bytes;
}

function confStateBytes(conf: ConfState): number {
  return (
    idsBytes(conf.voters) +
    idsBytes(conf.learners) +
    idsBytes(conf.votersOutgoing) +
    idsBytes(conf.learnersNext) +
    (conf.autoLeave ? 2 : 0)
  );
}

function writeSnapshot(snapshot: Snapshot, out: Buffer, offset: number): number {
  const { meta } = snapshot;
  out[offset++] = MessageTag.snapshot;
  offset = writeVarint(out, offset, snapshotBytes(snapshot));
  offset = writeBytesField(out, offset, SnapshotTag.data, snapshot.data);
  out[offset++] = SnapshotTag.meta;
  offset = writeVarint(out, offset, metaBytes(meta));
  out[offset++] = MetaTag.confState;
  offset = writeVarint(out, offset, confStateBytes(meta.confState));
  offset = writeConfState(meta.confState, out, offset);
  offset = writeUintField(out, offset, MetaTag.index, meta.index);
  return writeUintField(out, offset, MetaTag.term, meta.term);
}

function writeIds(out: Buffer, offset: number, tag: number, ids: readonly NodeId[]): number {
  for (const id of ids) {
    out[offset++] = tag;
    offset = writeBigVarint(out, offset, id);
  }
  return offset;
}

function writeConfState(conf: ConfState, out: Buffer, offset: number): number {
  offset = writeIds(out, offset, ConfTag.voters, conf.voters);
  offset = writeIds(out, offset, ConfTag.learners, conf.learners);
  offset = writeIds(out, offset, ConfTag.votersOutgoing, conf.votersOutgoing);
  offset = writeIds(out, offset, ConfTag.learnersNext, conf.learnersNext);
  if (conf.autoLeave) {
    out[offset++] = ConfTag.autoLeave;
    out[offset++] = 1;
  }
  return offset;
}

// --- reading ---

/** One for all: a read ends before anything else runs. Messages inside of messages narrow its end (openEmbedded). */
const reader = new Reader();

/** Leaves no buffer behind that the reader would keep alive. */
function endRead(): boolean {
  const { ok } = reader;
  reader.reset(NO_BYTES, 0, 0);
  return ok;
}

/** One entry in `buffer[start, end)`; null when it is malformed. Its data is a part of `buffer`, which must stay as it is. Hot. */
export function decodeEntry(buffer: Buffer, start: number, end: number): Entry | null {
  assert(start >= 0 && start <= end && end <= buffer.length, 'an entry outside of its buffer');
  reader.reset(buffer, start, end);
  const entry = readEntry();
  return endRead() ? entry : null;
}

/** A message in `buffer[start, end)`; null when it is malformed. Its bytes are parts of `buffer`, which must stay as it is. */
export function decodeMessage(buffer: Buffer, start: number, end: number): Message | null {
  assert(start >= 0 && start <= end && end <= buffer.length, 'a message outside of its buffer');
  reader.reset(buffer, start, end);
  const message = newMessage(MessageType.hup, NONE);
  const entries: Entry[] = [];
  while (reader.readTag()) readMessageField(message, entries);
  if (!endRead()) return null;
  if (entries.length > 0) message.entries = entries;
  if (message.type === MessageType.app && !followIndex(message.index, entries)) return null;
  // Members before 3.6 send an empty snapshot in every message; raft takes one without an index for none.
  if (message.snapshot !== null && message.snapshot.meta.index === 0) message.snapshot = null;
  return message;
}

/** An append's entries are those after its index; raft's log relies on it. */
function followIndex(index: number, entries: readonly Entry[]): boolean {
  for (let i = 0; i < entries.length; i++) if (entries[i]!.index !== index + 1 + i) return false;
  return true;
}

/** A field by its tag: a known number with another wire type is an unknown field, as in Go. */
function readMessageField(message: Message, entries: Entry[]): void {
  switch (fieldTag()) {
    case MessageTag.type:
      message.type = readKind(MessageType.forgetLeader) as MessageType;
      return;
    case MessageTag.to:
      message.to = reader.readUint64();
      return;
    case MessageTag.from:
      message.from = reader.readUint64();
      return;
    case MessageTag.term:
      message.term = readPosition();
      return;
    case MessageTag.logTerm:
      message.logTerm = readPosition();
      return;
    case MessageTag.index:
      message.index = readPosition();
      return;
    case MessageTag.entries:
      readEntryInto(entries);
      return;
    case MessageTag.commit:
      message.commit = readPosition();
      return;
    case MessageTag.snapshot:
      message.snapshot = readSnapshot(message.snapshot);
      return;
    case MessageTag.reject:
      message.reject = reader.readBool();
      return;
    case MessageTag.rejectHint:
      message.rejectHint = readPosition();
      return;
    case MessageTag.context:
      message.context = readBuffer();
      return;
    case MessageTag.vote:
      message.vote = reader.readUint64();
      return;
    default:
      reader.skip();
  }
}

/** Of the last readTag(). Numbers from 2^28 on would need more than 31 bits, and are unknown. */
function fieldTag(): number {
  return reader.fieldNumber > 15 ? 0 : reader.fieldNumber * 8 + reader.wireType;
}

/** A term or an index. */
function readPosition(): number {
  const value = reader.readUint();
  // Rounded from 2^53 on, but never down to below it.
  if (value > raftPositionMax) reader.fail();
  return value;
}

/** An enum of the values 0 to `last`. */
function readKind(last: number): number {
  const value = reader.readEnum();
  if (value >= 0 && value <= last) return value;
  reader.fail();
  return 0;
}

function readBuffer(): Buffer {
  if (!reader.readBytes() || reader.bytesStart === reader.bytesEnd) return NO_BYTES;
  return reader.buffer.subarray(reader.bytesStart, reader.bytesEnd);
}

/** Enters a message inside of the one being read; gives what closeEmbedded() needs. */
function openEmbedded(): number {
  const { end } = reader;
  if (reader.readBytes()) {
    reader.position = reader.bytesStart;
    reader.end = reader.bytesEnd;
  }
  return end;
}

function closeEmbedded(end: number): void {
  // At its end, or failed; then the next readTag() answers false.
  reader.position = reader.end;
  reader.end = end;
}

/** Up to the reader's end. */
function readEntry(): Entry {
  let type = 0;
  let term = 0;
  let index = 0;
  let data = NO_BYTES;
  while (reader.readTag()) {
    switch (fieldTag()) {
      case EntryTag.type:
        type = readKind(EntryType.confChangeV2);
        break;
      case EntryTag.term:
        term = readPosition();
        break;
      case EntryTag.index:
        index = readPosition();
        break;
      case EntryTag.data:
        data = readBuffer();
        break;
      default:
        reader.skip();
    }
  }
  return { term, index, type: type as EntryType, data };
}

function readEntryInto(entries: Entry[]): void {
  const end = openEmbedded();
  const entry = readEntry();
  closeEmbedded(end);
  if (entries.push(entry) > peerMessageEntriesMax) reader.fail();
}

const EMPTY_META: SnapshotMeta = { confState: EMPTY_CONF_STATE, index: 0, term: 0 };

/** Merged into what an earlier field of the same number gave. */
function readSnapshot(before: Snapshot | null): Snapshot {
  let data = before?.data ?? NO_BYTES;
  let meta = before?.meta ?? EMPTY_META;
  const end = openEmbedded();
  while (reader.readTag()) {
    const tag = fieldTag();
    if (tag === SnapshotTag.data) data = readBuffer();
    else if (tag === SnapshotTag.meta) meta = readMeta(meta);
    else reader.skip();
  }
  closeEmbedded(end);
  return { meta, data };
}

function readMeta(before: SnapshotMeta): SnapshotMeta {
  let { confState, index, term } = before;
  const end = openEmbedded();
  while (reader.readTag()) {
    const tag = fieldTag();
    if (tag === MetaTag.confState) confState = readConfState(confState);
    else if (tag === MetaTag.index) index = readPosition();
    else if (tag === MetaTag.term) term = readPosition();
    else reader.skip();
  }
  closeEmbedded(end);
  return { confState, index, term };
}

function readConfState(before: ConfState): ConfState {
  const voters = [...before.voters];
  const learners = [...before.learners];
  const votersOutgoing = [...before.votersOutgoing];
  const learnersNext = [...before.learnersNext];
  let { autoLeave } = before;
  // By field number.
  const lists = [voters, learners, votersOutgoing, learnersNext];
  const end = openEmbedded();
  while (reader.readTag()) {
    const list = lists[reader.fieldNumber - 1];
    if (list !== undefined && reader.wireType === WireType.varint) list.push(reader.readUint64());
    else if (list !== undefined && reader.wireType === WireType.bytes) readPackedIds(list);
    else if (fieldTag() === ConfTag.autoLeave) autoLeave = reader.readBool();
    else reader.skip();
  }
  closeEmbedded(end);
  return { voters, learners, votersOutgoing, learnersNext, autoLeave };
}

function readPackedIds(ids: NodeId[]): void {
  const end = openEmbedded();
  while (reader.ok && reader.position < reader.end) ids.push(reader.readUint64());
  closeEmbedded(end);
}
