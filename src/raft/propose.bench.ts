// How much one voter's proposals cost in the core: propose, Ready, storage, persisted, committed, applied, in batches
// of 500. Run: node src/raft/propose.bench.ts. Budget: 0.1 us a proposal, of the 2 us that the whole put path has
// (DESIGN.md). Measured on a shared 2-core machine with Node 26: 27-34 ns each, 30 million a second, one by one or as a
// batch.

import type { MemoryStorage } from './memory-storage.ts';
import { RawNode } from './raw-node.ts';
import { testConfig, voterStorage } from './testing.ts';

const BATCH = 500;
const ROUNDS = 4000;
/** As the server does: the log's tail is bounded. */
const COMPACT_EVERY = 20;

function run(node: RawNode, storage: MemoryStorage, propose: (node: RawNode) => void): number {
  const start = process.hrtime.bigint();
  for (let round = 0; round < ROUNDS; round++) {
    propose(node);
    while (node.hasReady()) {
      const ready = node.ready();
      storage.append(ready.entries);
      if (ready.hardState !== null) storage.setHardState(ready.hardState);
      node.persisted(ready.sequence);
      const { committedEntries } = ready;
      if (committedEntries.length > 0) node.applied(committedEntries[committedEntries.length - 1]!.index);
    }
    if (round % COMPACT_EVERY === 0) storage.compact(Math.max(0, node.appliedIndex - BATCH));
  }
  return Number(process.hrtime.bigint() - start) / 1e9;
}

const storage = voterStorage(1n);
const node = new RawNode(testConfig(storage));
node.campaign();
while (node.hasReady()) {
  const ready = node.ready();
  storage.append(ready.entries);
  node.persisted(ready.sequence);
}
const data = Buffer.alloc(256);
const datas = new Array<Buffer>(BATCH).fill(data);
const oneByOne = (target: RawNode): void => {
  for (let i = 0; i < BATCH; i++) target.propose(data);
};
for (let i = 0; i < 3; i++) {
  for (const [name, propose] of [
    ['propose', oneByOne],
    ['proposeBatch', (target: RawNode) => void target.proposeBatch(datas)],
  ] as const) {
    const seconds = run(node, storage, propose);
    const total = BATCH * ROUNDS;
    console.log(`${name}: ${Math.round(total / seconds)} proposals/s, ${((seconds / total) * 1e9).toFixed(0)} ns each`);
  }
}
