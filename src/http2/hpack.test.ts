// Goal: HPACK is RFC 7541's, both directions. Method: the vectors of appendix C decoded step by step with the table's
// content compared, and encoded where they use Huffman (our encoder's choices are theirs); every symbol round trip; each
// decoding error of the RFC; table size updates.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HeaderBlock } from './header-block.ts';
import type { HeaderField } from './header-field.ts';
import { HpackDecoder } from './hpack-decoder.ts';
import { encodedBytesMax, HpackEncoder, type OutputField, writeInteger } from './hpack-encoder.ts';
import { type DynamicTable, staticTable } from './hpack-table.ts';
import { huffmanDecode, huffmanEncode, huffmanLength } from './huffman.ts';

type Pair = readonly [string, string];

interface Series {
  readonly name: string;
  readonly capacity: number;
  readonly huffman: boolean;
  readonly steps: readonly {
    readonly block: string;
    readonly fields: readonly Pair[];
    readonly table: readonly Pair[];
    readonly tableBytes: number;
  }[];
}

// RFC 7541, appendix C.3 to C.6.
const series: readonly Series[] = [
  {
    name: 'C.3',
    capacity: 4096,
    huffman: false,
    steps: [
      {
        block: '828684410f7777772e6578616d706c652e636f6d',
        fields: [
          [':method', 'GET'],
          [':scheme', 'http'],
          [':path', '/'],
          [':authority', 'www.example.com'],
        ],
        table: [[':authority', 'www.example.com']],
        tableBytes: 57,
      },
      {
        block: '828684be58086e6f2d6361636865',
        fields: [
          [':method', 'GET'],
          [':scheme', 'http'],
          [':path', '/'],
          [':authority', 'www.example.com'],
          ['cache-control', 'no-cache'],
        ],
        table: [
          ['cache-control', 'no-cache'],
          [':authority', 'www.example.com'],
        ],
        tableBytes: 110,
      },
      {
        block: '828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565',
        fields: [
          [':method', 'GET'],
          [':scheme', 'https'],
          [':path', '/index.html'],
          [':authority', 'www.example.com'],
          ['custom-key', 'custom-value'],
        ],
        table: [
          ['custom-key', 'custom-value'],
          ['cache-control', 'no-cache'],
          [':authority', 'www.example.com'],
        ],
        tableBytes: 164,
      },
    ],
  },
  {
    name: 'C.4',
    capacity: 4096,
    huffman: true,
    steps: [
      {
        block: '828684418cf1e3c2e5f23a6ba0ab90f4ff',
        fields: [
          [':method', 'GET'],
          [':scheme', 'http'],
          [':path', '/'],
          [':authority', 'www.example.com'],
        ],
        table: [[':authority', 'www.example.com']],
        tableBytes: 57,
      },
      {
        block: '828684be5886a8eb10649cbf',
        fields: [
          [':method', 'GET'],
          [':scheme', 'http'],
          [':path', '/'],
          [':authority', 'www.example.com'],
          ['cache-control', 'no-cache'],
        ],
        table: [
          ['cache-control', 'no-cache'],
          [':authority', 'www.example.com'],
        ],
        tableBytes: 110,
      },
      {
        block: '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf',
        fields: [
          [':method', 'GET'],
          [':scheme', 'https'],
          [':path', '/index.html'],
          [':authority', 'www.example.com'],
          ['custom-key', 'custom-value'],
        ],
        table: [
          ['custom-key', 'custom-value'],
          ['cache-control', 'no-cache'],
          [':authority', 'www.example.com'],
        ],
        tableBytes: 164,
      },
    ],
  },
  {
    name: 'C.5',
    capacity: 256,
    huffman: false,
    steps: [
      {
        block:
          '4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d',
        fields: [
          [':status', '302'],
          ['cache-control', 'private'],
          ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
          ['location', 'https://www.example.com'],
        ],
        table: [
          ['location', 'https://www.example.com'],
          ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
          ['cache-control', 'private'],
          [':status', '302'],
        ],
        tableBytes: 222,
      },
      {
        block: '4803333037c1c0bf',
        fields: [
          [':status', '307'],
          ['cache-control', 'private'],
          ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
          ['location', 'https://www.example.com'],
        ],
        table: [
          [':status', '307'],
          ['location', 'https://www.example.com'],
          ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
          ['cache-control', 'private'],
        ],
        tableBytes: 222,
      },
      {
        block:
          '88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31',
        fields: [
          [':status', '200'],
          ['cache-control', 'private'],
          ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
          ['location', 'https://www.example.com'],
          ['content-encoding', 'gzip'],
          ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
        ],
        table: [
          ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
          ['content-encoding', 'gzip'],
          ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
        ],
        tableBytes: 215,
      },
    ],
  },
  {
    name: 'C.6',
    capacity: 256,
    huffman: true,
    steps: [
      {
        block:
          '488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3',
        fields: [
          [':status', '302'],
          ['cache-control', 'private'],
          ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
          ['location', 'https://www.example.com'],
        ],
        table: [
          ['location', 'https://www.example.com'],
          ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
          ['cache-control', 'private'],
          [':status', '302'],
        ],
        tableBytes: 222,
      },
      {
        block: '4883640effc1c0bf',
        fields: [
          [':status', '307'],
          ['cache-control', 'private'],
          ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
          ['location', 'https://www.example.com'],
        ],
        table: [
          [':status', '307'],
          ['location', 'https://www.example.com'],
          ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
          ['cache-control', 'private'],
        ],
        tableBytes: 222,
      },
      {
        block:
          '88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007',
        fields: [
          [':status', '200'],
          ['cache-control', 'private'],
          ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
          ['location', 'https://www.example.com'],
          ['content-encoding', 'gzip'],
          ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
        ],
        table: [
          ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
          ['content-encoding', 'gzip'],
          ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
        ],
        tableBytes: 215,
      },
    ],
  },
];

function decode(decoder: HpackDecoder, block: Buffer): Pair[] | null {
  const fields: Pair[] = [];
  const ok = decoder.decode(block, 0, block.length, {
    field: (field: HeaderField): void => {
      fields.push([field.name, field.value]);
    },
  });
  return ok ? fields : null;
}

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

function tableOf(table: DynamicTable): Pair[] {
  const entries: Pair[] = [];
  for (let i = 0; i < table.count; i += 1) {
    const field = table.get(62 + i)!;
    entries.push([field.name, field.value]);
  }
  return entries;
}

function encode(encoder: HpackEncoder, fields: readonly OutputField[]): Buffer {
  const out = Buffer.alloc(encodedBytesMax(fields));
  return out.subarray(0, encoder.encode(fields, out, 0));
}

for (const { name, capacity, huffman, steps } of series) {
  test(`RFC 7541 ${name}`, () => {
    const decoder = new HpackDecoder(capacity);
    const encoder = new HpackEncoder(capacity);
    for (const { block, fields, table, tableBytes } of steps) {
      assert.deepEqual(decode(decoder, hex(block)), fields);
      assert.deepEqual(tableOf(decoder.table), table);
      assert.equal(decoder.table.bytes, tableBytes);
      if (huffman) {
        const output = fields.map(([key, value]) => ({ name: key, value, indexed: true }));
        assert.equal(encode(encoder, output).toString('hex'), block);
        assert.deepEqual(tableOf(encoder.table), table);
      }
    }
  });
}

test('RFC 7541 C.1: integers', () => {
  const out = Buffer.alloc(8);
  const written = (pattern: number, mask: number, value: number): string =>
    out.toString('hex', 0, writeInteger(out, 0, pattern, mask, value));
  assert.equal(written(0, 0x1f, 10), '0a');
  assert.equal(written(0, 0x1f, 1337), '1f9a0a');
  assert.equal(written(0, 0xff, 42), '2a');
});

test('RFC 7541 C.2: representations one by one', () => {
  const cases: readonly [string, Pair, number][] = [
    ['400a637573746f6d2d6b65790d637573746f6d2d686561646572', ['custom-key', 'custom-header'], 1],
    ['040c2f73616d706c652f70617468', [':path', '/sample/path'], 0],
    ['100870617373776f726406736563726574', ['password', 'secret'], 0],
    ['82', [':method', 'GET'], 0],
  ];
  for (const [block, field, entries] of cases) {
    const decoder = new HpackDecoder(4096);
    assert.deepEqual(decode(decoder, hex(block)), [field]);
    assert.equal(decoder.table.count, entries);
  }
  const sensitive = encode(new HpackEncoder(4096), [{ name: 'password', value: 'secret', sensitive: true }]);
  assert.equal(sensitive[0], 0x10);
});

test('the static table begins and ends as appendix A', () => {
  assert.deepEqual([staticTable[1]!.name, staticTable[61]!.name], [':authority', 'www-authenticate']);
  assert.deepEqual([staticTable[8]!.name, staticTable[8]!.value], [':status', '200']);
  assert.equal(staticTable.length, 62);
});

test('Huffman: every octet there and back, at every bit offset', () => {
  for (let first = 0; first < 256; first += 1) {
    for (const tail of ['', 'a', '0', '~~', '\xff\x00']) {
      const text = String.fromCharCode(first) + tail;
      const coded = Buffer.alloc(64);
      const end = huffmanEncode(text, coded, 0);
      assert.equal(end, huffmanLength(text));
      const out = Buffer.alloc(128);
      assert.equal(out.toString('latin1', 0, huffmanDecode(coded, 0, end, out)), text);
    }
  }
});

test('Huffman: bad padding and end-of-string are refused', () => {
  const out = Buffer.alloc(64);
  assert.equal(huffmanDecode(hex('1fff'), 0, 2, out), -1, 'a code and more than seven bits of padding');
  assert.equal(huffmanDecode(hex('18'), 0, 1, out), -1, 'padding of zeros');
  assert.equal(huffmanDecode(hex('3fffffff'), 0, 4, out), -1, 'end of string');
  assert.equal(huffmanDecode(hex('ff'), 0, 1, out), -1, 'eight bits of padding');
  assert.equal(huffmanDecode(hex('1f'), 0, 1, out), 1, "'a' and three bits of padding");
});

test('what the RFC calls a decoding error is one', () => {
  const bad: Record<string, string> = {
    'index 0': '80',
    'index beyond the tables': 'be',
    'literal with an unknown name index': '7f00 00',
    'integer without its end': 'ff',
    'integer of five continuation bytes': 'ffffffffffff0f',
    'string longer than the block': '4005 6162',
    'string length missing': '40',
    'value missing': '4001 61',
    'table size update above the setting': '3fe21f',
    'table size update behind a field': '82 20',
    'Huffman string with bad padding': '0081 18',
  };
  for (const [what, block] of Object.entries(bad)) {
    assert.equal(decode(new HpackDecoder(4096), hex(block)), null, what);
  }
});

test('the decoder follows size updates, also two in one block', () => {
  const decoder = new HpackDecoder(4096);
  decode(decoder, hex('400a637573746f6d2d6b65790d637573746f6d2d686561646572'));
  assert.equal(decoder.table.count, 1);
  assert.deepEqual(decode(decoder, hex('20 3fe11f 82')), [[':method', 'GET']]);
  assert.equal(decoder.table.count, 0);
  assert.equal(decoder.table.capacity, 4096);
});

test('an entry larger than the table empties it', () => {
  const decoder = new HpackDecoder(60);
  assert.deepEqual(decode(decoder, hex('4001610162')), [['a', 'b']]);
  assert.equal(decoder.table.count, 1);
  const long = Buffer.concat([hex('400161 40'), Buffer.alloc(64, 'x')]);
  assert.equal(decode(decoder, long)?.length, 1);
  assert.equal(decoder.table.count, 0);
});

test('the encoder announces table sizes, the smallest since the last block too', () => {
  const encoder = new HpackEncoder(4096);
  const field = { name: 'grpc-status', value: '0', indexed: true };
  const decoder = new HpackDecoder(4096);
  assert.deepEqual(decode(decoder, encode(encoder, [field])), [['grpc-status', '0']]);
  assert.equal(encode(encoder, [field]).toString('hex'), 'be');
  encoder.peerTableSize(0);
  encoder.peerTableSize(1000);
  const block = encode(encoder, [field]);
  assert.equal(block.toString('hex', 0, 4), '203fc907', 'size 0, then size 1000');
  assert.deepEqual(decode(decoder, block), [['grpc-status', '0']]);
  assert.deepEqual(tableOf(decoder.table), tableOf(encoder.table));
  encoder.peerTableSize(0);
  const plain = encode(encoder, [field]);
  assert.deepEqual(decode(decoder, plain), [['grpc-status', '0']]);
  assert.equal(decoder.table.count, 0);
});

test('a header block settles to constant bytes and follows table changes', () => {
  const encoder = new HpackEncoder(4096);
  const decoder = new HpackDecoder(4096);
  const headers = new HeaderBlock([
    { name: ':status', value: '200' },
    { name: 'content-type', value: 'application/grpc', indexed: true },
  ]);
  const trailers = new HeaderBlock([{ name: 'grpc-status', value: '0', indexed: true }]);
  const write = (block: HeaderBlock): Buffer => {
    const out = Buffer.alloc(256);
    return out.subarray(0, block.write(encoder, out, 0));
  };
  for (let i = 0; i < 5; i += 1) {
    const first = write(headers);
    const last = write(trailers);
    assert.equal(decode(decoder, first)?.length, 2);
    assert.deepEqual(decode(decoder, last), [['grpc-status', '0']]);
    if (i > 0) assert.deepEqual([first.toString('hex'), last.toString('hex')], ['88bf', 'be']);
  }
  encoder.peerTableSize(0);
  for (let i = 0; i < 3; i += 1) {
    assert.equal(decode(decoder, write(headers))?.length, 2);
    assert.deepEqual(decode(decoder, write(trailers)), [['grpc-status', '0']]);
  }
});

test('the dynamic table wraps around its ring', () => {
  const decoder = new HpackDecoder(4096);
  for (let i = 0; i < 1000; i += 1) {
    const name = `n${i}`;
    const block = Buffer.concat([Buffer.from([0x40, name.length]), Buffer.from(name), Buffer.from([1, 0x61])]);
    assert.deepEqual(decode(decoder, block), [[name, 'a']]);
    assert.equal(decoder.table.get(62)?.name, name);
    const oldest = decoder.table.get(61 + decoder.table.count);
    assert.equal(oldest?.name, `n${i + 1 - decoder.table.count}`);
    assert.equal(decoder.table.get(62 + decoder.table.count), null);
  }
});
