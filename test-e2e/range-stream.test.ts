// Goal: a RangeStream has flat memory however slow its client is: eight streams of 100,000 keys at once, 280 MB of answers, grow the
// server by a fraction of that, and each is exact. Method: a real process, its anonymous memory sampled while the clients read a
// message every few milliseconds.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { RangeStreamResponse } from '../src/proto/kv-schema.ts';
import { decode, encode } from '../src/proto/message.ts';
import { type OpInit, RangeMessage } from '../src/testing/kv-messages.ts';
import { EtcdClient, expectOk } from './support/etcd-client.ts';
import { removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';

const KEYS = 100_000;
const STREAMS = 8;
const VALUE_BYTES = 300;
/** An eighth of what the streams carry. Measured: 6 MB; before chunks were reused, and were as large as etcd's, 54 MB. */
const GROWTH_BYTES_MAX = (STREAMS * KEYS * VALUE_BYTES) / 8;
const PAUSE_MS = 5;

const dataDir = temporaryDirectory('range-stream');
let server: ServerProcess;
let address: string;
const identity = (bytes: Buffer): Buffer => bytes;

before(async () => {
  server = ServerProcess.start({ dataDir });
  address = await server.whenReady();
  const client = new EtcdClient(address);
  for (let from = 0; from < KEYS; from += 125) {
    const success: OpInit[] = [];
    for (let i = from; i < from + 125; i++) {
      success.push({ put: { key: Buffer.from(`key/${KEYS + i}`), value: Buffer.alloc(VALUE_BYTES, i) } });
    }
    expectOk(await client.txn({ success }));
  }
  client.close();
});
after(async () => {
  await server.stop('SIGKILL');
  removeDirectory(dataDir);
});

function anonymousBytes(): number {
  const status = readFileSync(`/proc/${server.child.pid}/status`, 'latin1');
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)![1]) * 1024;
}

/** Reads the whole range, waiting between messages; returns how many keys it brought, all in order. */
function readSlowly(pauseMs: number): Promise<number> {
  const client = new Client(address, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.max_receive_message_length': -1,
  });
  const request = encode(RangeMessage, { key: Buffer.from('key/'), rangeEnd: Buffer.from('key0') });
  const path = '/etcdserverpb.KV/RangeStream';
  const call = client.makeServerStreamRequest(path, identity, identity, request, new Metadata(), {});
  return new Promise((resolve, reject) => {
    let keys = 0;
    call.on('data', (message: Buffer) => {
      for (const { key, value } of decode(RangeStreamResponse, message)!.rangeResponse!.kvs) {
        if (key.toString() !== `key/${KEYS + keys}` || value[0] !== (keys & 0xff)) {
          reject(new Error(`key ${keys} is ${key.toString()}`));
        }
        keys++;
      }
      if (pauseMs === 0) return;
      call.pause();
      setTimeout(() => call.resume(), pauseMs);
    });
    call.on('error', reject);
    call.on('end', () => {
      client.close();
      resolve(keys);
    });
  });
}

test('slow streams of 100,000 keys do not grow the server', { timeout: 120_000 }, async (t) => {
  // What one stream makes grow once, code and buffers, is not what is measured.
  assert.equal(await readSlowly(0), KEYS);
  const before = anonymousBytes();
  let peak = before;
  const sampler = setInterval(() => {
    peak = Math.max(peak, anonymousBytes());
  }, 20);
  const counts = await Promise.all(Array.from({ length: STREAMS }, () => readSlowly(PAUSE_MS)));
  clearInterval(sampler);
  const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
  t.diagnostic(
    `RssAnon ${megabytes(before)} MB before, ${megabytes(peak)} MB at most, ${megabytes(anonymousBytes())} after`,
  );
  assert.deepEqual(counts, new Array(STREAMS).fill(KEYS));
  assert.ok(peak - before < GROWTH_BYTES_MAX, `grew by ${megabytes(peak - before)} MB`);
});
