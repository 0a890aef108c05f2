// etcd's stored schema: the names of its buckets and of the keys within, and the byte encoding of every value that is not a
// protobuf message. It follows etcd 3.7's server/storage/schema and server/storage/mvcc/revision.go. It knows no database:
// LMDB tables, bbolt buckets and tests use the same encodings. Protobuf values are src/proto's part.
//
//   bucket           key                              value
//   alarm            AlarmMember (protobuf)           empty
//   auth             "authEnabled"                    1 byte: 0 or 1
//                    "authRevision"                   u64 BE
//   authRoles        role name                        authpb.Role (protobuf)
//   authUsers        user name                        authpb.User (protobuf)
//   cluster          "clusterVersion"                 text, "3.7.0": always with patch 0
//                    "downgrade"                      JSON {"target-version":"3.6.0","enabled":true}
//   key              revision key, below              mvccpb.KeyValue (protobuf); of a tombstone only its key field
//   lease            i64 BE lease id                  leasepb.Lease (protobuf: 1 ID, 2 TTL, 3 RemainingTTL)
//   members          member id, hex without padding   JSON {"id":N,"peerURLs":[..],"isLearner":true,"name":"..","clientURLs":[..]}
//   members_removed  member id, hex without padding   text "removed"
//   meta             "confState"                      JSON {"voters":[..],"learners":[..],"voters_outgoing":[..],
//                                                           "learners_next":[..],"auto_leave":false}
//                    "consistent_index"               u64 BE; never 0
//                    "term"                           u64 BE; never 0
//                    "storageVersion"                 text, "3.7.0"
//                    "scheduledCompactRev"            17-byte revision key with sub 0
//                    "finishedCompactRev"             17-byte revision key with sub 0
//
//   revision key   0  i64 BE  main
//                  8  '_'
//                  9  i64 BE  sub: the position of the change within its transaction
//                 17  't'     only of a tombstone
//
// Empty lists, an empty name and a false isLearner are left out of the JSON, as Go's omitempty does; auto_leave is there.

import { assert } from '../base/assert.ts';

const TWO_32 = 4294967296;

/** In the order in which bbolt, and so every hash over the whole file, goes through them. */
export const BUCKET_NAMES = [
  'alarm',
  'auth',
  'authRoles',
  'authUsers',
  'cluster',
  'key',
  'lease',
  'members',
  'members_removed',
  'meta',
] as const;
export type BucketName = (typeof BUCKET_NAMES)[number];

type Keys<Name extends string> = Readonly<Record<Name, Buffer>>;

export const MetaKey: Keys<
  'confState' | 'consistentIndex' | 'term' | 'storageVersion' | 'scheduledCompactRev' | 'finishedCompactRev'
> = {
  confState: Buffer.from('confState'),
  consistentIndex: Buffer.from('consistent_index'),
  term: Buffer.from('term'),
  storageVersion: Buffer.from('storageVersion'),
  scheduledCompactRev: Buffer.from('scheduledCompactRev'),
  finishedCompactRev: Buffer.from('finishedCompactRev'),
};

export const AuthKey: Keys<'enabled' | 'revision'> = {
  enabled: Buffer.from('authEnabled'),
  revision: Buffer.from('authRevision'),
};

export const ClusterKey: Keys<'version' | 'downgrade'> = {
  version: Buffer.from('clusterVersion'),
  downgrade: Buffer.from('downgrade'),
};

/** The value of every entry in members_removed. */
export const REMOVED_MEMBER: Buffer = Buffer.from('removed');

export const REVISION_KEY_BYTES = 17;
export const TOMBSTONE_KEY_BYTES = 18;
const SEPARATOR = 0x5f;
const TOMBSTONE = 0x74;

/** Writes a revision key at `offset`; returns the next offset. Hot. */
export function writeRevisionKey(out: Buffer, offset: number, main: number, sub: number, isTombstone: boolean): number {
  assert(main >= 0 && main <= Number.MAX_SAFE_INTEGER, 'revision key: main out of range');
  assert(sub >= 0 && sub <= Number.MAX_SAFE_INTEGER, 'revision key: sub out of range');
  writeUint64(out, offset, main);
  out[offset + 8] = SEPARATOR;
  writeUint64(out, offset + 9, sub);
  if (!isTombstone) return offset + REVISION_KEY_BYTES;
  out[offset + 17] = TOMBSTONE;
  return offset + TOMBSTONE_KEY_BYTES;
}

/** Byte by byte: Buffer's own methods check more, which costs four times as much. */
function writeUint64(out: Buffer, offset: number, value: number): void {
  const high = Math.floor(value / TWO_32);
  const low = value % TWO_32;
  out[offset] = high >>> 24;
  out[offset + 1] = high >>> 16;
  out[offset + 2] = high >>> 8;
  out[offset + 3] = high;
  out[offset + 4] = low >>> 24;
  out[offset + 5] = low >>> 16;
  out[offset + 6] = low >>> 8;
  out[offset + 7] = low;
}

export function encodeRevisionKey(main: number, sub: number, isTombstone = false): Buffer {
  const out = Buffer.allocUnsafe(isTombstone ? TOMBSTONE_KEY_BYTES : REVISION_KEY_BYTES);
  writeRevisionKey(out, 0, main, sub, isTombstone);
  return out;
}

/**
 * Whether `key` is a revision key that this program can hold: revisions above 2^53 are refused (etcd's own bound is 2^63),
 * as is an 18th byte other than 't', which etcd reads as no tombstone and never writes.
 */
export function isRevisionKey(key: Buffer): boolean {
  if (key.length !== REVISION_KEY_BYTES && key.length !== TOMBSTONE_KEY_BYTES) return false;
  if (key[8] !== SEPARATOR || key[0] !== 0 || key[9] !== 0) return false;
  if (key[1]! >= 0x20 || key[10]! >= 0x20) return false;
  return key.length === REVISION_KEY_BYTES || key[17] === TOMBSTONE;
}

/** Of a key that isRevisionKey() holds for, from `offset` on. */
export function revisionMain(key: Buffer, offset = 0): number {
  return key.readUInt32BE(offset) * TWO_32 + key.readUInt32BE(offset + 4);
}

/** Of a key that isRevisionKey() holds for, from `offset` on. */
export function revisionSub(key: Buffer, offset = 0): number {
  return key.readUInt32BE(offset + 9) * TWO_32 + key.readUInt32BE(offset + 13);
}

/** Of a key that isRevisionKey() holds for. */
export function isTombstoneKey(key: Buffer): boolean {
  return key.length === TOMBSTONE_KEY_BYTES;
}

/** u64 BE: consistent_index, term, authRevision. */
export function encodeCounter(value: number): Buffer {
  assert(value >= 0 && value <= Number.MAX_SAFE_INTEGER, 'counter out of range');
  const out = Buffer.allocUnsafe(8);
  out.writeUInt32BE(Math.floor(value / TWO_32), 0);
  out.writeUInt32BE(value % TWO_32, 4);
  return out;
}

/** null: not eight bytes, or above 2^53. */
export function decodeCounter(bytes: Buffer): number | null {
  if (bytes.length !== 8 || bytes.readUInt32BE(0) >= 0x200000) return null;
  return bytes.readUInt32BE(0) * TWO_32 + bytes.readUInt32BE(4);
}

/** The key of a lease. Ids are signed 64-bit numbers. */
export function encodeLeaseKey(id: bigint): Buffer {
  const out = Buffer.allocUnsafe(8);
  out.writeBigInt64BE(id);
  return out;
}

export function decodeLeaseKey(key: Buffer): bigint | null {
  return key.length === 8 ? key.readBigInt64BE() : null;
}

/** The key of a member in members and members_removed. */
export function encodeMemberKey(id: bigint): Buffer {
  return Buffer.from(id.toString(16), 'latin1');
}

export function decodeMemberKey(key: Buffer): bigint | null {
  const text = key.toString('latin1');
  if (!/^[0-9a-fA-F]+$/.test(text)) return null;
  const id = BigInt(`0x${text}`);
  return id <= U64_MAX ? id : null;
}

/** raftpb.ConfState as `meta` holds it. Ids are unsigned 64-bit numbers. */
export interface StoredConfState {
  readonly voters: readonly bigint[];
  readonly learners: readonly bigint[];
  readonly votersOutgoing: readonly bigint[];
  readonly learnersNext: readonly bigint[];
  readonly autoLeave: boolean;
}

export function encodeConfState(state: StoredConfState): Buffer {
  const parts: string[] = [];
  if (state.voters.length > 0) parts.push(`"voters":[${state.voters.join(',')}]`);
  if (state.learners.length > 0) parts.push(`"learners":[${state.learners.join(',')}]`);
  if (state.votersOutgoing.length > 0) parts.push(`"voters_outgoing":[${state.votersOutgoing.join(',')}]`);
  if (state.learnersNext.length > 0) parts.push(`"learners_next":[${state.learnersNext.join(',')}]`);
  parts.push(`"auto_leave":${state.autoLeave}`);
  return Buffer.from(`{${parts.join(',')}}`);
}

export function decodeConfState(bytes: Buffer): StoredConfState | null {
  const object = parseObject(bytes);
  if (object === null) return null;
  const voters = idsOf(object['voters']);
  const learners = idsOf(object['learners']);
  const votersOutgoing = idsOf(object['voters_outgoing']);
  const learnersNext = idsOf(object['learners_next']);
  const autoLeave = object['auto_leave'] ?? false;
  if (voters === null || learners === null || votersOutgoing === null || learnersNext === null) return null;
  if (typeof autoLeave !== 'boolean') return null;
  return { voters, learners, votersOutgoing, learnersNext, autoLeave };
}

/** A member as `members` holds it. */
export interface StoredMember {
  readonly id: bigint;
  readonly peerUrls: readonly string[];
  readonly isLearner: boolean;
  /** Empty until the member has started. */
  readonly name: string;
  readonly clientUrls: readonly string[];
}

export function encodeMember(member: StoredMember): Buffer {
  const raft = encodeRaftAttributes(member).slice(1, -1);
  const own = encodeMemberAttributes(member).slice(1, -1);
  return Buffer.from(`{"id":${member.id},${raft}${own === '' ? '' : `,${own}`}}`);
}

/** What raft has to know of a member, as a JSON object of its own. */
export function encodeRaftAttributes({ peerUrls, isLearner }: StoredMember): string {
  return `{"peerURLs":${goJson(peerUrls)}${isLearner ? ',"isLearner":true' : ''}}`;
}

/** What a member publishes of itself, as a JSON object of its own. */
export function encodeMemberAttributes({ name, clientUrls }: StoredMember): string {
  const parts: string[] = [];
  if (name !== '') parts.push(`"name":${goJson(name)}`);
  if (clientUrls.length > 0) parts.push(`"clientURLs":${goJson(clientUrls)}`);
  return `{${parts.join(',')}}`;
}

export function decodeMember(bytes: Buffer): StoredMember | null {
  const object = parseObject(bytes);
  return object === null ? null : memberOf(object);
}

/** A list of members, as a member answers /members on its peer listener; null: it is none. */
export function decodeMemberList(bytes: Buffer): StoredMember[] | null {
  const list = parseWholeNumbers(bytes);
  if (!Array.isArray(list)) return null;
  const members = list.map((item: unknown) => (isObject(item) ? memberOf(item) : null));
  return members.every((member) => member !== null) ? members : null;
}

function memberOf(object: Readonly<Record<string, unknown>>): StoredMember | null {
  const id = object['id'];
  const peerUrls = textsOf(object['peerURLs']);
  const clientUrls = textsOf(object['clientURLs']);
  const isLearner = object['isLearner'] ?? false;
  const name = object['name'] ?? '';
  if (typeof id !== 'bigint' || id < 0n || id > U64_MAX || peerUrls === null || clientUrls === null) return null;
  if (typeof isLearner !== 'boolean' || typeof name !== 'string') return null;
  return { id, peerUrls, isLearner, name, clientUrls };
}

/** cluster/downgrade. The target is empty when `isEnabled` is false. */
export interface StoredDowngrade {
  readonly targetVersion: string;
  readonly isEnabled: boolean;
}

export function encodeDowngrade(downgrade: StoredDowngrade): Buffer {
  return Buffer.from(`{"target-version":${goJson(downgrade.targetVersion)},"enabled":${downgrade.isEnabled}}`);
}

export function decodeDowngrade(bytes: Buffer): StoredDowngrade | null {
  const object = parseObject(bytes);
  if (object === null) return null;
  const targetVersion = object['target-version'] ?? '';
  const isEnabled = object['enabled'] ?? false;
  if (typeof targetVersion !== 'string' || typeof isEnabled !== 'boolean') return null;
  return { targetVersion, isEnabled };
}

const U64_MAX = 0xffffffffffffffffn;

/** JSON text as Go's encoding/json writes it: also the characters that are dangerous inside HTML are escaped. */
function goJson(value: string | readonly string[]): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

type ParseWithSource = (
  text: string,
  reviver: (key: string, value: unknown, context: { readonly source?: string }) => unknown,
) => unknown;

/** A JSON object whose whole numbers are bigints: ids do not fit a double. null: no JSON, or no object. */
function parseObject(bytes: Buffer): Record<string, unknown> | null {
  const parsed = parseWholeNumbers(bytes);
  return isObject(parsed) ? parsed : null;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whole numbers as bigints; null when it is no JSON. */
function parseWholeNumbers(bytes: Buffer): unknown {
  try {
    return (JSON.parse as ParseWithSource)(bytes.toString('utf8'), (_key, value, context) =>
      typeof value === 'number' && /^-?[0-9]+$/.test(context.source ?? '') ? BigInt(context.source!) : value,
    );
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function idsOf(value: unknown): readonly bigint[] | null {
  const list: unknown = value ?? [];
  if (!Array.isArray(list)) return null;
  return list.every((id) => typeof id === 'bigint' && id >= 0n && id <= U64_MAX) ? list : null;
}

function textsOf(value: unknown): readonly string[] | null {
  const list: unknown = value ?? [];
  if (!Array.isArray(list)) return null;
  return list.every((text) => typeof text === 'string') ? list : null;
}
