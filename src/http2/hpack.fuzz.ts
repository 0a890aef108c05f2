// Fuzz of HPACK. Random and mutated blocks: the decoder answers with fields or with an error, its table stays within its
// bound, and nothing else happens. Random field lists: what the encoder writes decodes to the same list, through table size
// changes, and both tables stay equal. Random bytes through Huffman and back.
//
//   node src/http2/hpack.fuzz.ts --seconds 60 [--seed 1]      prints the seed of the run that failed

import assert from 'node:assert/strict';
import { type Random, SeededRandom } from '../io/random.ts';
import { fuzzMain } from '../testing/fuzz-loop.ts';
import type { HeaderField } from './header-field.ts';
import { HpackDecoder } from './hpack-decoder.ts';
import { encodedBytesMax, HpackEncoder, type OutputField } from './hpack-encoder.ts';
import { staticTable } from './hpack-table.ts';
import { huffmanDecode, huffmanEncode, huffmanLength } from './huffman.ts';

function randomText(random: Random, lengthMax: number): string {
  const bytes = Buffer.alloc(random.below(lengthMax + 1));
  const printable = random.below(2) === 0;
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = printable ? 0x20 + random.below(0x5f) : random.below(256);
  return bytes.toString('latin1');
}

function randomFields(random: Random, names: readonly string[]): OutputField[] {
  return Array.from({ length: random.below(12) }, () => {
    const kind = random.below(4);
    const known = staticTable[1 + random.below(61)]!;
    const name = kind === 0 ? known.name : kind === 1 ? names[random.below(names.length)]! : randomText(random, 20);
    const value = random.below(3) === 0 ? known.value : randomText(random, random.below(20) === 0 ? 5000 : 30);
    return { name, value, indexed: random.below(2) === 0, sensitive: random.below(10) === 0 };
  }).map((field) => (field.sensitive ? { ...field, indexed: false } : field));
}

function decodeAll(decoder: HpackDecoder, block: Buffer): [string, string][] | null {
  const fields: [string, string][] = [];
  const ok = decoder.decode(block, 0, block.length, {
    field: (field: HeaderField): void => {
      assert.equal(field.bytes, field.name.length + field.value.length + 32);
      fields.push([field.name, field.value]);
    },
  });
  assert.ok(decoder.table.bytes <= decoder.table.capacity && decoder.table.capacity <= 4096);
  assert.ok(decoder.table.count <= 128);
  return ok ? fields : null;
}

function roundTrips(random: Random): void {
  const encoder = new HpackEncoder(4096);
  const decoder = new HpackDecoder(4096);
  const hostile = new HpackDecoder(4096);
  const names = Array.from({ length: 5 }, () => randomText(random, 30));
  for (let i = 0; i < 30; i += 1) {
    if (random.below(4) === 0) encoder.peerTableSize(random.below(6000));
    if (random.below(8) === 0) encoder.peerTableSize(random.below(200));
    const fields = randomFields(random, names);
    const out = Buffer.alloc(encodedBytesMax(fields));
    const block = out.subarray(0, encoder.encode(fields, out, 0));
    const expected = fields.map(({ name, value }) => [name, value]);
    assert.deepEqual(decodeAll(decoder, block), expected);
    assert.deepEqual([decoder.table.count, decoder.table.bytes], [encoder.table.count, encoder.table.bytes]);
    for (let age = 0; age < decoder.table.count; age += 1) {
      assert.equal(decoder.table.get(62 + age)!.value, encoder.table.get(62 + age)!.value);
    }
    // The same block, harmed, to a decoder whose table is another.
    const harmed = Buffer.from(block);
    for (let k = random.below(4); k > 0 && harmed.length > 0; k -= 1) {
      harmed[random.below(harmed.length)] = random.below(256);
    }
    decodeAll(hostile, harmed.subarray(0, random.below(harmed.length + 1)));
  }
}

function noise(random: Random): void {
  const decoder = new HpackDecoder(random.below(4097));
  for (let i = 0; i < 20; i += 1) {
    const block = Buffer.alloc(random.below(300));
    random.fill(block);
    decodeAll(decoder, block);
    const out = Buffer.alloc(600);
    huffmanDecode(block, 0, block.length, out);
    const text = block.toString('latin1');
    const coded = Buffer.alloc(huffmanLength(text));
    assert.equal(huffmanEncode(text, coded, 0), coded.length);
    const back = Buffer.alloc(coded.length * 2 + 8);
    assert.equal(back.toString('latin1', 0, huffmanDecode(coded, 0, coded.length, back)), text);
  }
}

/** One seeded run. Throws when something is wrong. */
export function fuzzHpack(seed: number): void {
  const random = new SeededRandom(seed);
  roundTrips(random);
  noise(random);
}

if (import.meta.main) fuzzMain(fuzzHpack);
