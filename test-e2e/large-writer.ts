// A thread that puts large values one after the other at one endpoint until it is terminated: apart from the thread that measures, whose
// times would else be of its own encoding. It posts how many puts were acknowledged, each time.

import { parentPort, workerData } from 'node:worker_threads';
import { EtcdClient, expectOk } from './support/etcd-client.ts';

const { endpoint, bytes }: { readonly endpoint: string; readonly bytes: number } = workerData;
const client = new EtcdClient(endpoint);
const value = Buffer.alloc(bytes, 'x');
for (let count = 1; ; count++) {
  expectOk(await client.put({ key: Buffer.from(`large/${count % 4}`), value }));
  parentPort!.postMessage(count);
}
