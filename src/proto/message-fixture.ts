// For the tests and the fuzzer of message.ts: every schema of the server, and random messages of a schema.

import type { Random } from '../io/random.ts';
import * as etcdserverpb from './etcdserverpb.ts';
import * as kvSchema from './kv-schema.ts';
import type { Field, MessageInit, Schema } from './message.ts';
import * as mvccpb from './mvccpb.ts';
import * as raftpb from './raftpb.ts';

function isSchema(value: unknown): value is Schema {
  if (typeof value !== 'object' || value === null) return false;
  return Object.values(value).every((field) => typeof field === 'object' && typeof (field as Field).no === 'number');
}

export const allSchemas: readonly (readonly [string, Schema])[] = Object.entries({
  ...etcdserverpb,
  ...kvSchema,
  ...mvccpb,
  ...raftpb,
}).flatMap(([name, value]) => (isSchema(value) ? [[name, value] as const] : []));

const TEXTS = ['', 'a', 'http://10.0.0.1:2379', 'größe', '鍵値', '\u{1f511}', '\u0000'];

function randomNumber(random: Random, bitsMax: number): number {
  return Math.floor(2 ** (random.float() * bitsMax)) - 1;
}

function randomScalar(field: Field, random: Random, depth: number): unknown {
  switch (field.kind) {
    case 'int':
      return random.below(4) === 0 ? -1 - randomNumber(random, 52) : randomNumber(random, 53);
    case 'enum':
      return random.below(4) === 0 ? -1 - randomNumber(random, 31) : randomNumber(random, 31);
    case 'uint':
      return randomNumber(random, 53);
    case 'int64':
      return BigInt.asIntN(64, random.uint64() >> BigInt(random.below(64)));
    case 'uint64':
      return random.uint64() >> BigInt(random.below(64));
    case 'bool':
      return random.below(2) === 0;
    case 'bytes': {
      const bytes = Buffer.alloc(random.below(4) === 0 ? 0 : random.below(200));
      random.fill(bytes);
      return bytes;
    }
    case 'string':
      return TEXTS[random.below(TEXTS.length)]!;
    default:
      return randomMessage(field.kind, random, depth + 1);
  }
}

/** Embedded messages nest no deeper: Txns contain themselves. */
const DEPTH_MAX = 6;

/** As decode() gives it: every field there, zero when it was not drawn. */
export function randomMessage(schema: Schema, random: Random, depth = 0): MessageInit<Schema> {
  const message: Record<string, unknown> = {};
  const oneofs = new Set<string>();
  for (const [name, field] of Object.entries(schema)) {
    const isDrawn = random.below(3) > 0 && !oneofs.has(field.oneof ?? '-') && depth < DEPTH_MAX;
    const count = random.below(4 - Math.min(depth, 3));
    if (field.repeated)
      message[name] = Array.from({ length: isDrawn ? count : 0 }, () => randomScalar(field, random, depth));
    else if (isDrawn) message[name] = randomScalar(field, random, depth);
    else message[name] = zeroOf(field);
    if (isDrawn && field.oneof !== undefined) oneofs.add(field.oneof);
  }
  return message as MessageInit<Schema>;
}

function zeroOf(field: Field): unknown {
  if (field.optional || field.oneof !== undefined || typeof field.kind === 'object') return undefined;
  if (field.kind === 'bool') return false;
  if (field.kind === 'bytes') return Buffer.alloc(0);
  if (field.kind === 'string') return '';
  return field.kind === 'int64' || field.kind === 'uint64' ? 0n : 0;
}
