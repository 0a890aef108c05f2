// Fuzzer of bolt-reader.ts: damages sound databases at random and reads them by every way in. Whatever the bytes, nothing may
// be thrown and the work must stay in proportion to the file: a limit on pages read stands for "never loops".
//
//   node src/snapshot/bolt-reader.fuzz.ts [--seconds N] [--seed N]     default: 10 seconds, a fresh seed, which is printed
//
// A finding is replayed with its seed and a count of rounds at least as high. bolt-fuzz.test.ts runs it for a second.

import { argv } from 'node:process';
import { SeededRandom } from '../io/random.ts';
import { checkBolt } from './bolt-check.ts';
import { loadFixture, MemoryFile, randomEntries, sourceOf, writeAll } from './bolt-fixture.ts';
import { fnv64a } from './bolt-format.ts';
import { type BoltBucket, CursorStep, openBolt, verifySnapshotHash } from './bolt-reader.ts';
import { snapshotStatus } from './status.ts';

/** What the rounds came to: if all were refused at the metas, the fuzzer would not reach the trees. */
export interface FuzzTally {
  rounds: number;
  refusedAtOpen: number;
  refusedInTree: number;
  sound: number;
}

const INTERESTING = [0, 1, 2, 3, 7, 8, 15, 16, 17, 255, 4095, 4096, 0x7fff, 0xffff, 0x7fffffff, 0xffffffff];

class Fuzzer {
  private readonly random: SeededRandom;
  private readonly samples: readonly Buffer[];
  readonly tally: FuzzTally = { rounds: 0, refusedAtOpen: 0, refusedInTree: 0, sound: 0 };

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
    this.samples = [
      loadFixture('bbolt-random'),
      loadFixture('etcd-compacted'),
      writeAll([sourceOf('key', randomEntries(this.random, 200)), sourceOf('meta', randomEntries(this.random, 5))]),
    ];
  }

  round(): void {
    const { random, tally } = this;
    let bytes = Buffer.from(this.samples[random.below(this.samples.length)]!);
    const damages = random.below(4);
    for (let i = 0; i < damages; i++) this.damage(bytes);
    if (random.below(10) === 0) bytes = bytes.subarray(0, random.below(bytes.length));
    tally.rounds++;
    const file = new BoundedFile(bytes);
    verifySnapshotHash(file);
    const opened = openBolt(file);
    if (!opened.ok) {
      tally.refusedAtOpen++;
      return;
    }
    const checked = checkBolt(opened.value);
    const status = snapshotStatus(opened.value);
    if (!checked.ok && status.ok) throw new Error('status answers for a file that the check refuses');
    if (checked.ok) tally.sound++;
    else tally.refusedInTree++;
    this.walk(opened.value.root(), { left: 2000 });
  }

  /** Mostly small changes on the headers and element tables, where they hurt. */
  private damage(bytes: Buffer): void {
    const { random } = this;
    const page = random.below(Math.ceil(bytes.length / 4096)) * 4096;
    const kind = random.below(10);
    if (kind === 0) {
      bytes[random.below(bytes.length)] = random.below(256);
    } else if (kind === 1) {
      const from = random.below(Math.ceil(bytes.length / 4096)) * 4096;
      bytes.copy(bytes, page, from, from + 4096);
    } else if (kind === 2) {
      this.damageMeta(bytes);
    } else {
      const at = page + random.below(kind < 6 ? 16 : 160);
      const value = random.below(3) === 0 ? random.uint32() : INTERESTING[random.below(INTERESTING.length)]!;
      if (at + 4 <= bytes.length) bytes.writeUInt32LE(value, at);
    }
  }

  /** Changes a field and seals the meta again, so that the damage gets past the checksum. */
  private damageMeta(bytes: Buffer): void {
    const { random } = this;
    for (const start of [16, 4096 + 16]) {
      if (start + 64 > bytes.length) return;
      const field = 8 + random.below(12) * 4;
      bytes.writeUInt32LE(INTERESTING[random.below(INTERESTING.length)]!, start + field);
      bytes.writeBigUInt64LE(fnv64a(bytes, start, start + 56), start + 56);
    }
  }

  /** Without the check's visitor: bounds and order alone must end every walk. Nested buckets share a budget of entries. */
  private walk(bucket: BoltBucket, budget: { left: number }): void {
    const cursor = bucket.cursor();
    let previous: Buffer | null = null;
    for (;;) {
      const step = cursor.next();
      if (step === CursorStep.error) {
        if (cursor.error === null || cursor.next() !== CursorStep.error) throw new Error('an error that does not stay');
        return;
      }
      if (step === CursorStep.end) return;
      if (previous !== null && Buffer.compare(previous, cursor.key) >= 0) throw new Error('keys do not ascend');
      previous = cursor.key;
      if (this.random.below(50) === 0) {
        const found = bucket.get(cursor.key);
        if (found.ok && !cursor.isBucket && !(found.value?.equals(cursor.value) ?? false))
          throw new Error('get misses a key');
      }
      if (!cursor.isBucket || --budget.left < 0) continue;
      const inner = cursor.bucket();
      if (inner.ok) this.walk(inner.value, budget);
    }
  }
}

/** Every way of reading together may load each page so many times: far above any sound walk, far below a loop. */
class BoundedFile extends MemoryFile {
  private readonly readsMax: number;

  constructor(bytes: Buffer) {
    super(bytes);
    this.readsMax = 100_000;
  }

  override read(offset: number, length: number): Buffer {
    if (this.reads > this.readsMax) throw new Error('the reader loops');
    if (offset < 0 || length < 0 || !Number.isSafeInteger(offset))
      throw new Error('the reader asks for impossible bytes');
    return super.read(offset, length);
  }
}

/** Runs for at most `seconds`; throws at a finding. */
export function fuzzBoltReader(seed: number, seconds: number): FuzzTally {
  const fuzzer = new Fuzzer(seed);
  const deadline = performance.now() + seconds * 1000;
  while (performance.now() < deadline) {
    try {
      fuzzer.round();
    } catch (error) {
      throw new Error(`bolt-reader fuzz: seed ${seed}, round ${fuzzer.tally.rounds}`, { cause: error });
    }
  }
  return fuzzer.tally;
}

if (import.meta.main) {
  const option = (name: string, fallback: number): number => {
    const at = argv.indexOf(name);
    return at === -1 ? fallback : Number(argv[at + 1]);
  };
  const seed = option('--seed', Date.now() % 1_000_000_000);
  console.log(`bolt-reader fuzz: seed ${seed}`);
  console.log(fuzzBoltReader(seed, option('--seconds', 10)));
}
