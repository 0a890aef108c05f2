// Messages described as data: a schema lists fields by number and kind, encode and decode walk it. For the messages that are
// not on a hot path (those have hand-written codecs beside). Follows proto3: zero values are not written, unknown fields are
// skipped, the last value of a singular field wins (an embedded message sent again is merged), of a oneof the last member, text
// that is no UTF-8 is malformed; fields are written in ascending number as Go's marshaller does, but repeated scalars one by one.

import { isUtf8 } from 'node:buffer';
import { assert } from '../base/assert.ts';
import { bigVarintLength, Reader, varintLength, WireType, writeBigVarint, writeVarint } from './wire.ts';

/**
 * Field kinds. `int`: int64 as number (exact within 2^53; negative written as ten bytes); `enum`: int32 as number; `uint`: uint64
 * as number; `int64`, `uint64`: as bigint, for ids; a schema: an embedded message.
 */
export type Kind = 'int' | 'enum' | 'uint' | 'int64' | 'uint64' | 'bool' | 'bytes' | 'string' | Schema;

export interface Field {
  readonly no: number;
  readonly kind: Kind;
  readonly repeated?: true;
  /** A proto2 optional: written when defined even if zero; absent is undefined. */
  readonly optional?: true;
  /** A member of the oneof of this name: optional, and the last member on the wire unsets the others. */
  readonly oneof?: string;
}

export type Schema = { readonly [name: string]: Field };

type Scalar<K extends Kind> = K extends 'int' | 'enum' | 'uint'
  ? number
  : K extends 'int64' | 'uint64'
    ? bigint
    : K extends 'bool'
      ? boolean
      : K extends 'bytes'
        ? Buffer
        : K extends 'string'
          ? string
          : K extends Schema
            ? Message<K>
            : never;

/** Scalars are always present in a decoded message, embedded messages only when they were sent. */
type Value<F extends Field> = F extends { repeated: true }
  ? Scalar<F['kind']>[]
  : F extends { optional: true } | { oneof: string }
    ? Scalar<F['kind']> | undefined
    : F['kind'] extends Schema
      ? Message<F['kind']> | undefined
      : Scalar<F['kind']>;

export type Message<S extends Schema> = { [N in keyof S]: Value<S[N]> };
/** What encode takes: every field may be left out. */
export type MessageInit<S extends Schema> = { readonly [N in keyof S]?: InitValue<S[N]> | undefined };
type InitValue<F extends Field> = F extends { repeated: true }
  ? readonly InitScalar<F['kind']>[]
  : InitScalar<F['kind']>;
type InitScalar<K extends Kind> = K extends Schema ? MessageInit<K> : Scalar<K>;

const EMPTY = Buffer.alloc(0);

interface Entry {
  readonly name: string;
  readonly field: Field;
  /** The other members of its oneof. */
  readonly others: readonly string[];
}

interface Compiled {
  readonly byNumber: ReadonlyMap<number, Entry>;
  readonly ordered: readonly Entry[];
}
const compiledSchemas = new WeakMap<Schema, Compiled>();

function compile(schema: Schema): Compiled {
  const known = compiledSchemas.get(schema);
  if (known !== undefined) return known;
  const fields = Object.entries(schema).sort((a, b) => a[1].no - b[1].no);
  const ordered = fields.map(([name, field]) => ({ name, field, others: othersOf(field, fields) }));
  const byNumber = new Map(ordered.map((entry) => [entry.field.no, entry] as const));
  assert(byNumber.size === ordered.length, 'two fields of a schema share a number');
  const compiled = { byNumber, ordered };
  compiledSchemas.set(schema, compiled);
  return compiled;
}

function othersOf(field: Field, fields: readonly (readonly [string, Field])[]): string[] {
  if (field.oneof === undefined) return [];
  return fields.filter(([, other]) => other !== field && other.oneof === field.oneof).map(([name]) => name);
}

function isOptional(field: Field): boolean {
  return field.optional === true || field.oneof !== undefined || typeof field.kind === 'object';
}

function zeroValue(field: Field): unknown {
  if (field.repeated) return [];
  if (isOptional(field)) return undefined;
  switch (field.kind) {
    case 'int':
    case 'enum':
    case 'uint':
      return 0;
    case 'int64':
    case 'uint64':
      return 0n;
    case 'bool':
      return false;
    case 'bytes':
      return EMPTY;
    default:
      return '';
  }
}

/** Embedded messages deeper than this are malformed; grpc-go's limit is 10,000, no message here nests beyond a Txn's few. */
const DEPTH_MAX = 100;

/** Decodes bytes[start, end); undefined when malformed. `bytes` fields are views on the input, not copies. */
export function decode<S extends Schema>(
  schema: S,
  bytes: Buffer,
  start = 0,
  end: number = bytes.length,
): Message<S> | undefined {
  return decodeAt(schema, bytes, start, end, 0, undefined) as Message<S> | undefined;
}

/** Into `known`, an earlier value of the same embedded message, or a new one. */
function decodeAt(schema: Schema, bytes: Buffer, start: number, end: number, depth: number, known: unknown): unknown {
  if (depth > DEPTH_MAX) return undefined;
  const { byNumber, ordered } = compile(schema);
  const message = (known ?? {}) as Record<string, unknown>;
  if (known === undefined) for (const { name, field } of ordered) message[name] = zeroValue(field);
  const reader = new Reader();
  reader.reset(bytes, start, end);
  while (reader.readTag()) {
    const entry = byNumber.get(reader.fieldNumber);
    if (entry === undefined) reader.skip();
    else if (!decodeField(message, entry, reader, depth)) return undefined;
  }
  return reader.ok ? message : undefined;
}

function decodeField(message: Record<string, unknown>, entry: Entry, reader: Reader, depth: number): boolean {
  const { name, field, others } = entry;
  const isBytes = field.kind === 'bytes' || field.kind === 'string' || typeof field.kind === 'object';
  if (reader.wireType === WireType.bytes && field.repeated && !isBytes) {
    if (!reader.readBytes()) return false;
    const packed = new Reader();
    packed.reset(reader.buffer, reader.bytesStart, reader.bytesEnd);
    while (packed.ok && packed.position < packed.end) (message[name] as unknown[]).push(readScalar(field.kind, packed));
    return packed.ok;
  }
  if (reader.wireType !== (isBytes ? WireType.bytes : WireType.varint)) {
    reader.skip();
    return reader.ok;
  }
  let value: unknown;
  if (typeof field.kind === 'object') {
    if (!reader.readBytes()) return false;
    const known = field.repeated ? undefined : message[name];
    value = decodeAt(field.kind, reader.buffer, reader.bytesStart, reader.bytesEnd, depth + 1, known);
    if (value === undefined) return false;
  } else value = readScalar(field.kind, reader);
  if (!reader.ok) return false;
  if (field.repeated) (message[name] as unknown[]).push(value);
  else {
    for (const other of others) message[other] = undefined;
    message[name] = value;
  }
  return true;
}

function readScalar(kind: Exclude<Kind, Schema>, reader: Reader): unknown {
  switch (kind) {
    case 'int':
      return reader.readInt();
    case 'enum':
      return reader.readEnum();
    case 'uint':
      return reader.readUint();
    case 'int64':
      return reader.readInt64();
    case 'uint64':
      return reader.readUint64();
    case 'bool':
      return reader.readBool();
    case 'bytes':
      return reader.readBytes() ? reader.buffer.subarray(reader.bytesStart, reader.bytesEnd) : EMPTY;
    default:
      return reader.readBytes() ? readText(reader) : '';
  }
}

function readText(reader: Reader): string {
  const { buffer, bytesStart, bytesEnd } = reader;
  if (!isUtf8(buffer.subarray(bytesStart, bytesEnd))) reader.fail();
  return buffer.toString('utf8', bytesStart, bytesEnd);
}

/** Encodes into a new Buffer. */
export function encode<S extends Schema>(schema: S, message: MessageInit<S>): Buffer {
  const out = Buffer.allocUnsafe(sizeOf(schema, message));
  const end = write(schema, message, out, 0);
  assert(end === out.length, 'size and encoding of a message disagree');
  return out;
}

function isZero(field: Field, value: unknown): boolean {
  if (value === undefined) return true;
  if (isOptional(field)) return false;
  return value === 0 || value === 0n || value === false || value === '' || (value as Buffer).length === 0;
}

function sizeOf(schema: Schema, message: object): number {
  let size = 0;
  for (const { name, field } of compile(schema).ordered) {
    const value = (message as Record<string, unknown>)[name];
    if (field.repeated) {
      if (value !== undefined) for (const item of value as unknown[]) size += fieldSize(field, item);
    } else if (!isZero(field, value)) size += fieldSize(field, value);
  }
  return size;
}

function fieldSize(field: Field, value: unknown): number {
  const tagSize = varintLength(field.no * 8);
  const kind = field.kind;
  if (typeof kind === 'object') {
    const size = sizeOf(kind, value as object);
    return tagSize + varintLength(size) + size;
  }
  switch (kind) {
    case 'int':
    case 'enum':
    case 'uint':
      return tagSize + ((value as number) < 0 ? 10 : varintLength(value as number));
    case 'int64':
    case 'uint64':
      return tagSize + bigVarintLength(value as bigint);
    case 'bool':
      return tagSize + 1;
    case 'bytes': {
      const length = (value as Buffer).length;
      return tagSize + varintLength(length) + length;
    }
    default: {
      const length = Buffer.byteLength(value as string, 'utf8');
      return tagSize + varintLength(length) + length;
    }
  }
}

function write(schema: Schema, message: object, out: Buffer, offset: number): number {
  for (const { name, field } of compile(schema).ordered) {
    const value = (message as Record<string, unknown>)[name];
    if (field.repeated) {
      if (value !== undefined) offset = writeRepeated(field, value as readonly unknown[], out, offset);
    } else if (!isZero(field, value)) offset = writeField(field, value, out, offset);
  }
  return offset;
}

function writeRepeated(field: Field, values: readonly unknown[], out: Buffer, offset: number): number {
  for (const value of values) offset = writeField(field, value, out, offset);
  return offset;
}

function writeField(field: Field, value: unknown, out: Buffer, offset: number): number {
  const kind = field.kind;
  const isBytes = kind === 'bytes' || kind === 'string' || typeof kind === 'object';
  offset = writeVarint(out, offset, field.no * 8 + (isBytes ? WireType.bytes : WireType.varint));
  if (typeof kind === 'object') {
    offset = writeVarint(out, offset, sizeOf(kind, value as object));
    return write(kind, value as object, out, offset);
  }
  switch (kind) {
    case 'int':
    case 'enum':
    case 'uint':
      return (value as number) < 0
        ? writeBigVarint(out, offset, BigInt(value as number))
        : writeVarint(out, offset, value as number);
    case 'int64':
    case 'uint64':
      return writeBigVarint(out, offset, value as bigint);
    case 'bool':
      out[offset] = value === true ? 1 : 0;
      return offset + 1;
    case 'bytes': {
      const bytes = value as Buffer;
      offset = writeVarint(out, offset, bytes.length);
      bytes.copy(out, offset);
      return offset + bytes.length;
    }
    default: {
      const length = Buffer.byteLength(value as string, 'utf8');
      offset = writeVarint(out, offset, length);
      out.write(value as string, offset, 'utf8');
      return offset + length;
    }
  }
}
