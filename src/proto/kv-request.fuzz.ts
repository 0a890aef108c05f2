// Fuzzer of kv-request.ts: harmed Range, Put, DeleteRange and Txn requests and made-up bytes. Nothing may be thrown, no offset
// may lie outside of the request, and whether the bytes are a message must be judged as the schema codec judges it; inside of more
// Txns than are read, as outside; with groups between their fields, as without.
//
//   node src/proto/kv-request.fuzz.ts [--seconds N] [--seed N]

import { type Random, SeededRandom } from '../io/random.ts';
import { fuzzMain } from '../testing/fuzz-loop.ts';
import { DeleteRangeRequest, EmptyOp, PutRequest, RangeRequest, type RequestOp, TxnRequest } from './kv-request.ts';
import {
  Compare as CompareSchema,
  DeleteRangeRequest as DeleteSchema,
  PutRequest as PutSchema,
  RangeRequest as RangeSchema,
  TxnRequest as TxnSchema,
} from './kv-schema.ts';
import { type FuzzTally, harm, madeUp, withGroups } from './message.fuzz.ts';
import { decode, encode, type Schema } from './message.ts';
import { randomMessage } from './message-fixture.ts';
import { writeVarint } from './wire.ts';

function randomTxn(random: Random, depth: number): Buffer {
  const op = (): object => {
    const kind = random.below(depth > 3 ? 3 : 4);
    if (kind === 0) return { requestRange: randomMessage(RangeSchema, random) };
    if (kind === 1) return { requestPut: randomMessage(PutSchema, random) };
    if (kind === 2) return { requestDeleteRange: randomMessage(DeleteSchema, random) };
    return { requestTxn: decode(TxnSchema, randomTxn(random, depth + 1)) };
  };
  const list = (make: () => object): object[] => Array.from({ length: random.below(3) }, make);
  return encode(TxnSchema, {
    compare: list(() => randomMessage(CompareSchema, random)),
    success: list(op),
    failure: list(op),
  });
}

function checkBounds(request: object, start: number, end: number): void {
  for (const [name, value] of Object.entries(request)) {
    if (!/(Start|End)$/.test(name)) continue;
    if (value < start || value > end) throw new Error(`${name} lies outside of the request`);
    if (name.endsWith('Start') && value > (request as Record<string, number>)[`${name.slice(0, -5)}End`]!) {
      throw new Error(`${name} lies after its end`);
    }
  }
}

const simple: readonly (readonly [Schema, RangeRequest | PutRequest | DeleteRangeRequest])[] = [
  [RangeSchema, new RangeRequest()],
  [PutSchema, new PutRequest()],
  [DeleteSchema, new DeleteRangeRequest()],
];

export function fuzzKvRequests(seed: number, tally: FuzzTally = { read: 0, refused: 0 }): void {
  const random = new SeededRandom(seed);
  const isTxn = random.below(2) === 0;
  const [schema] = simple[random.below(3)]!;
  const valid = isTxn ? randomTxn(random, 0) : encode(schema, randomMessage(schema, random));
  const harmed = random.below(5) === 0 ? madeUp(random) : harm(valid, random);
  const bytes = (random.below(4) === 0 ? withGroups(harmed, random) : null) ?? harmed;
  const before = madeUp(random);
  const around = Buffer.concat([before, bytes, madeUp(random)]);
  const start = before.length;
  const end = start + bytes.length;
  for (const [other, request] of simple) {
    const isRead = request.parse(around, start, end);
    checkBounds(request, start, end);
    if (isRead !== (decode(other, bytes) !== undefined)) throw new Error('the schema codec judges otherwise');
  }
  const txn = new TxnRequest();
  const isRead = txn.parse(around, start, end);
  if (isRead) tally.read++;
  else tally.refused++;
  // The other direction does not hold: a RequestOp's member twice is refused here alone.
  if (isRead && decode(TxnSchema, bytes) === undefined) throw new Error('the schema codec refuses this txn');
  checkTxn(txn, start, end);
  if (random.below(20) === 0) checkDeep(bytes, isRead, random);
}

/** Of a Txn that is looked through only (it nests too deep to be read) the same is said as of it alone. */
function checkDeep(bytes: Buffer, isRead: boolean, random: Random): void {
  let deep = bytes;
  for (let level = 301 + random.below(20); level > 0; level--) deep = inField(0x12, inField(0x22, deep));
  if (new TxnRequest().parse(deep, 0, deep.length) !== isRead) throw new Error('deep inside it is judged otherwise');
}

function inField(tag: number, bytes: Buffer): Buffer {
  const head = Buffer.alloc(6);
  head[0] = tag;
  return Buffer.concat([head.subarray(0, writeVarint(head, 1, bytes.length)), bytes]);
}

function checkTxn(txn: TxnRequest, start: number, end: number): void {
  for (const compare of txn.compare) checkBounds(compare, start, end);
  for (const op of [...txn.success, ...txn.failure]) checkOp(op, start, end);
}

function checkOp(op: RequestOp, start: number, end: number): void {
  if (op instanceof TxnRequest) checkTxn(op, start, end);
  else if (!(op instanceof EmptyOp)) checkBounds(op, start, end);
}

if (import.meta.main) fuzzMain(fuzzKvRequests);
