// The hot requests of etcdserverpb.KV, read in place: Range, Put, DeleteRange, Txn (with Compare and RequestOp). A request keeps
// the buffer it was read from and offsets into it; nothing is copied. Objects for Range, Put and DeleteRange may be reused by
// `parse`; a Txn allocates one object an operation.

import { messagesNestedMax, txnMessagesNestedMax } from '../limits.ts';
import { Reader, WireType } from './wire.ts';

const EMPTY: Buffer = Buffer.alloc(0);

/** A reader a nesting level: parsing a Txn recurses. */
const readers: Reader[] = [];
function readerAt(depth: number): Reader {
  let reader = readers[depth];
  if (reader === undefined) {
    reader = new Reader();
    readers[depth] = reader;
  }
  return reader;
}

export const SortOrder = { none: 0, ascend: 1, descend: 2 } as const;
export const SortTarget = { key: 0, version: 1, create: 2, mod: 3, value: 4 } as const;

export class RangeRequest {
  buffer: Buffer = EMPTY;
  keyStart = 0;
  keyEnd = 0;
  rangeEndStart = 0;
  rangeEndEnd = 0;
  limit = 0;
  revision = 0;
  sortOrder = 0;
  sortTarget = 0;
  serializable = false;
  keysOnly = false;
  countOnly = false;
  minModRevision = 0;
  maxModRevision = 0;
  minCreateRevision = 0;
  maxCreateRevision = 0;

  /** False when malformed. */
  parse(buffer: Buffer, start: number, end: number, depth = 0): boolean {
    const reader = readerAt(depth);
    reader.reset(buffer, start, end);
    this.buffer = buffer;
    this.keyStart = this.keyEnd = this.rangeEndStart = this.rangeEndEnd = start;
    this.limit = this.revision = this.sortOrder = this.sortTarget = 0;
    this.serializable = this.keysOnly = this.countOnly = false;
    this.minModRevision = this.maxModRevision = this.minCreateRevision = this.maxCreateRevision = 0;
    while (reader.readTag()) {
      if (reader.fieldNumber <= 2 && reader.wireType === WireType.bytes) {
        reader.readBytes();
        if (reader.fieldNumber === 1) {
          this.keyStart = reader.bytesStart;
          this.keyEnd = reader.bytesEnd;
        } else {
          this.rangeEndStart = reader.bytesStart;
          this.rangeEndEnd = reader.bytesEnd;
        }
      } else if (reader.wireType === WireType.varint) this.parseOption(reader);
      else reader.skip();
    }
    return reader.ok;
  }

  private parseOption(reader: Reader): void {
    switch (reader.fieldNumber) {
      case 3:
        this.limit = reader.readInt();
        break;
      case 4:
        this.revision = reader.readInt();
        break;
      case 5:
        this.sortOrder = reader.readEnum();
        break;
      case 6:
        this.sortTarget = reader.readEnum();
        break;
      case 7:
        this.serializable = reader.readBool();
        break;
      case 8:
        this.keysOnly = reader.readBool();
        break;
      case 9:
        this.countOnly = reader.readBool();
        break;
      case 10:
        this.minModRevision = reader.readInt();
        break;
      case 11:
        this.maxModRevision = reader.readInt();
        break;
      case 12:
        this.minCreateRevision = reader.readInt();
        break;
      case 13:
        this.maxCreateRevision = reader.readInt();
        break;
      default:
        reader.skip();
    }
  }
}

export class PutRequest {
  buffer: Buffer = EMPTY;
  keyStart = 0;
  keyEnd = 0;
  valueStart = 0;
  valueEnd = 0;
  leaseHigh = 0;
  leaseLow = 0;
  prevKv = false;
  ignoreValue = false;
  ignoreLease = false;

  parse(buffer: Buffer, start: number, end: number, depth = 0): boolean {
    const reader = readerAt(depth);
    reader.reset(buffer, start, end);
    this.buffer = buffer;
    this.keyStart = this.keyEnd = this.valueStart = this.valueEnd = start;
    this.leaseHigh = this.leaseLow = 0;
    this.prevKv = this.ignoreValue = this.ignoreLease = false;
    while (reader.readTag()) {
      switch (reader.fieldNumber * 8 + reader.wireType) {
        case 0x0a:
          reader.readBytes();
          this.keyStart = reader.bytesStart;
          this.keyEnd = reader.bytesEnd;
          break;
        case 0x12:
          reader.readBytes();
          this.valueStart = reader.bytesStart;
          this.valueEnd = reader.bytesEnd;
          break;
        case 0x18:
          reader.readVarint64();
          this.leaseHigh = reader.high;
          this.leaseLow = reader.low;
          break;
        case 0x20:
          this.prevKv = reader.readBool();
          break;
        case 0x28:
          this.ignoreValue = reader.readBool();
          break;
        case 0x30:
          this.ignoreLease = reader.readBool();
          break;
        default:
          reader.skip();
      }
    }
    return reader.ok;
  }

  get hasLease(): boolean {
    return this.leaseHigh !== 0 || this.leaseLow !== 0;
  }
}

export class DeleteRangeRequest {
  buffer: Buffer = EMPTY;
  keyStart = 0;
  keyEnd = 0;
  rangeEndStart = 0;
  rangeEndEnd = 0;
  prevKv = false;

  parse(buffer: Buffer, start: number, end: number, depth = 0): boolean {
    const reader = readerAt(depth);
    reader.reset(buffer, start, end);
    this.buffer = buffer;
    this.keyStart = this.keyEnd = this.rangeEndStart = this.rangeEndEnd = start;
    this.prevKv = false;
    while (reader.readTag()) {
      switch (reader.fieldNumber * 8 + reader.wireType) {
        case 0x0a:
          reader.readBytes();
          this.keyStart = reader.bytesStart;
          this.keyEnd = reader.bytesEnd;
          break;
        case 0x12:
          reader.readBytes();
          this.rangeEndStart = reader.bytesStart;
          this.rangeEndEnd = reader.bytesEnd;
          break;
        case 0x18:
          this.prevKv = reader.readBool();
          break;
        default:
          reader.skip();
      }
    }
    return reader.ok;
  }
}

export const CompareResult = { equal: 0, greater: 1, less: 2, notEqual: 3 } as const;
export const CompareTarget = { version: 0, create: 1, mod: 2, value: 3, lease: 4 } as const;

export class Compare {
  buffer: Buffer = EMPTY;
  result = 0;
  target = 0;
  keyStart = 0;
  keyEnd = 0;
  rangeEndStart = 0;
  rangeEndEnd = 0;
  /** The field number (4 to 8) of the target_union member that was sent, 0 when none was. */
  unionField = 0;
  /** version, create_revision or mod_revision. */
  number = 0;
  leaseHigh = 0;
  leaseLow = 0;
  valueStart = 0;
  valueEnd = 0;

  parse(buffer: Buffer, start: number, end: number, depth: number): boolean {
    const reader = readerAt(depth);
    reader.reset(buffer, start, end);
    this.buffer = buffer;
    this.keyStart = this.keyEnd = this.rangeEndStart = this.rangeEndEnd = this.valueStart = this.valueEnd = start;
    while (reader.readTag()) {
      const field = reader.fieldNumber;
      if (reader.wireType === WireType.varint) this.parseVarint(field, reader);
      else if (reader.wireType === WireType.bytes && (field === 3 || field === 7 || field === 64)) {
        reader.readBytes();
        if (field === 3) {
          this.keyStart = reader.bytesStart;
          this.keyEnd = reader.bytesEnd;
        } else if (field === 64) {
          this.rangeEndStart = reader.bytesStart;
          this.rangeEndEnd = reader.bytesEnd;
        } else {
          this.unionField = 7;
          this.valueStart = reader.bytesStart;
          this.valueEnd = reader.bytesEnd;
        }
      } else reader.skip();
    }
    return reader.ok;
  }

  private parseVarint(field: number, reader: Reader): void {
    if (field === 1) this.result = reader.readEnum();
    else if (field === 2) this.target = reader.readEnum();
    else if (field >= 4 && field <= 6) {
      this.unionField = field;
      this.number = reader.readInt();
    } else if (field === 8) {
      this.unionField = 8;
      reader.readVarint64();
      this.leaseHigh = reader.high;
      this.leaseLow = reader.low;
    } else reader.skip();
  }
}

/** A RequestOp: the member of its oneof, or an empty one (which the check refuses as etcd does). */
export type RequestOp = RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest | EmptyOp;

export class EmptyOp {
  readonly empty = true;
}
const EMPTY_OP = new EmptyOp();

export class TxnRequest {
  compare: Compare[] = [];
  success: RequestOp[] = [];
  failure: RequestOp[] = [];
  /** It nests deeper than is read: it is well-formed, but stands here empty, and must be refused (rpc/kv-check.ts). */
  isTooDeep = false;

  parse(buffer: Buffer, start: number, end: number, depth = 0): boolean {
    if (depth > txnMessagesNestedMax) {
      this.isTooDeep = true;
      return isTxn(buffer, start, end, depth, null);
    }
    const reader = readerAt(depth);
    reader.reset(buffer, start, end);
    while (reader.readTag()) {
      const field = reader.fieldNumber;
      if (reader.wireType !== WireType.bytes || field > 3) {
        reader.skip();
        continue;
      }
      if (!reader.readBytes()) return false;
      if (field === 1) {
        const compare = new Compare();
        if (!compare.parse(buffer, reader.bytesStart, reader.bytesEnd, depth + 1)) return false;
        this.compare.push(compare);
      } else {
        const op = parseOp(buffer, reader.bytesStart, reader.bytesEnd, depth + 1);
        if (op === undefined) return false;
        (field === 2 ? this.success : this.failure).push(op);
      }
    }
    return reader.ok;
  }
}

function parseOp(buffer: Buffer, start: number, end: number, depth: number): RequestOp | undefined {
  const reader = readerAt(depth);
  reader.reset(buffer, start, end);
  let op: RequestOp = EMPTY_OP;
  let member = 0;
  while (reader.readTag()) {
    const field = reader.fieldNumber;
    if (reader.wireType !== WireType.bytes || field > 4) {
      reader.skip();
      continue;
    }
    if (!reader.readBytes()) return undefined;
    // Of a oneof the last member counts, but the same member twice is merged by protobuf. Nobody sends that; it is refused, since
    // these bytes go into the log as they are and an etcd in the cluster would read them differently.
    if (field === member) return undefined;
    member = field;
    op = newOp(field);
    if (!op.parse(buffer, reader.bytesStart, reader.bytesEnd, depth + 1)) return undefined;
  }
  return reader.ok ? op : undefined;
}

const deepReader = new Reader();
const deepCompare = new Compare();
const deepLeaves = [new RangeRequest(), new PutRequest(), new DeleteRangeRequest()] as const;

/** A Txn that is looked over, without objects for its operations; reused. */
export class TxnScan {
  /** Of both branches of all Txns in it. */
  putsEmptyKey = false;
  keepsOld = false;
  deletes = false;

  /** Whether TxnRequest.parse() reads the whole of it, none of it too deep. */
  parse(buffer: Buffer, start: number, end: number): boolean {
    this.putsEmptyKey = this.keepsOld = this.deletes = false;
    return isTxn(buffer, start, end, 0, this);
  }

  /** After parse() of an operation that is no Txn, into its one of deepLeaves. */
  note(field: number): void {
    if (field === 3) this.deletes = true;
    if (field !== 2) return;
    const put = deepLeaves[1];
    if (put.keyStart === put.keyEnd) this.putsEmptyKey = true;
    if (put.ignoreValue || put.ignoreLease) this.keepsOld = true;
  }
}

/**
 * Whether the bytes are a Txn of messages that Go's decoder would take, judged as parse() does, but without recursion: the ends of
 * the messages around the present one are kept. A Txn and a RequestOp take turns. For a scan none may be deeper than parse() reads.
 */
function isTxn(buffer: Buffer, start: number, end: number, depth: number, scan: TxnScan | null): boolean {
  const reader = deepReader;
  reader.reset(buffer, start, end);
  /** Of the message at each level; of a RequestOp the member that it has, of a Txn 0. */
  const ends = [end];
  const members = [0];
  while (ends.length > 0) {
    const level = ends.length - 1;
    const isOp = level % 2 === 1;
    if (reader.position >= reader.end) {
      ends.pop();
      members.pop();
      if (level > 0) reader.end = ends[level - 1]!;
      continue;
    }
    if (!reader.readTag()) return false;
    const field = reader.fieldNumber;
    if (reader.wireType !== WireType.bytes || field > (isOp ? 4 : 3)) {
      reader.skip();
      if (!reader.ok) return false;
      continue;
    }
    if (!reader.readBytes() || depth + level + 1 >= messagesNestedMax) return false;
    const { bytesStart, bytesEnd } = reader;
    if (isOp) {
      if (field === members[level]) return false;
      members[level] = field;
    }
    if (isOp ? field === 4 : field !== 1) {
      if (isOp && scan !== null && level + 1 > txnMessagesNestedMax) return false;
      ends.push(bytesEnd);
      members.push(0);
      reader.position = bytesStart;
      reader.end = bytesEnd;
    } else {
      const leaf = isOp ? deepLeaves[field - 1]! : deepCompare;
      if (!leaf.parse(buffer, bytesStart, bytesEnd, depth)) return false;
      if (isOp) scan?.note(field);
    }
  }
  return true;
}

function newOp(field: number): Exclude<RequestOp, EmptyOp> {
  switch (field) {
    case 1:
      return new RangeRequest();
    case 2:
      return new PutRequest();
    case 3:
      return new DeleteRangeRequest();
    default:
      return new TxnRequest();
  }
}
