// A member's start on a disk that stops at its n-th change: for tests of starts that a crash cuts short. Directories and log are on the
// simulated disk; the database is real, and is found as it was closed or not at all. The network is the test's.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import type { Applier } from '../apply/applier.ts';
import type { FatalError } from '../base/fatal.ts';
import type { ServerConfig } from '../config/server-config.ts';
import type { DiskLock } from '../io/file.ts';
import { SeededRandom } from '../io/random.ts';
import { syncWriter } from '../io/wal-writer.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { type BootstrapOptions, openMember } from '../server/bootstrap.ts';
import type { Member } from '../server/member.ts';
import { backendObserver, leaseCounters, memberCounters, walObserver } from '../server/observers.ts';
import { planStart } from '../server/start-plan.ts';
import { Logger } from '../telemetry/logger.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { configOf } from './config-fixture.ts';
import { PutMessage } from './kv-messages.ts';
import { SimDisk } from './sim-disk.ts';

const silent = new Logger({ level: 'fatal', format: 'json', sink: { write: () => {}, flush: () => {} }, now: () => 0 });

/** Directories exist for the real database too, and it is known when the member has let go of everything. */
export class StartDisk extends SimDisk {
  private held = 0;
  private onFree: (() => void) | null = null;

  override mkdir(directory: string): void {
    super.mkdir(directory);
    mkdirSync(directory, { recursive: true });
  }

  override lock(file: string): DiskLock | null {
    const lock = super.lock(file);
    if (lock === null) return null;
    this.held++;
    let isHeld = true;
    return {
      release: () => {
        lock.release();
        if (isHeld) this.held--;
        isHeld = false;
        if (this.held === 0) this.onFree?.();
      },
    };
  }

  /** Of a start that failed: its database is closed. */
  async free(): Promise<void> {
    if (this.held > 0) await new Promise<void>((resolve) => (this.onFree = resolve));
    this.onFree = null;
  }
}

export function configFor(dataDir: string, ...flags: string[]): Promise<ServerConfig> {
  return configOf('--name=m1', `--data-dir=${dataDir}`, ...flags);
}

export interface Started {
  readonly member: Member;
  /** Rejects with the SimCrash that came in the loop. */
  readonly crashed: Promise<never>;
}

export type Network = Pick<BootstrapOptions, 'newTransport' | 'peerRequests'>;

export async function start(config: ServerConfig, disk: StartDisk, seed: number, network: Network): Promise<Started> {
  const options = { serverVersion: '3.7.1', runtimeVersion: 'test', extensive: false, features: [] };
  const metrics = new Metrics(options, async () => assert.fail('nobody scrapes'));
  let crash: (error: unknown) => void;
  const crashed = new Promise<never>((_, reject) => (crash = reject));
  crashed.catch(() => {});
  const plan = await planStart({ config, logger: silent, peerRequests: network.peerRequests, disk });
  const member = openMember({
    config,
    plan,
    serverVersion: '3.7.1',
    logger: silent,
    random: new SeededRandom(seed),
    walWriter: syncWriter(disk),
    walObserver: walObserver(metrics),
    backendObserver: backendObserver(metrics, () => 0),
    memberCounters: memberCounters(metrics),
    leaseCounters: leaseCounters(metrics),
    failpoints: null,
    onFatal: (error: FatalError) => crash(error),
    flushConnections: () => {},
    ...network,
    onRemoved: () => {},
    schedule: (run) =>
      setImmediate(() => {
        try {
          run();
        } catch (error) {
          crash(error);
        }
      }),
    disk,
    walSegmentBytes: 16_384,
  });
  return { member, crashed };
}

/** Resolves with the answer's revision. */
export function put(member: Member, key: string): Promise<number> {
  const bytes = encode(PutMessage, { key: Buffer.from(key), value: Buffer.from('v') });
  return new Promise((resolve, reject) => {
    const applied = (applier: Applier): void => resolve(applier.error === null ? applier.revision : Number.NaN);
    const error = member.propose(RequestField.put, bytes, 0, bytes.length, { applied, failed: reject });
    if (error !== null) reject(error);
  });
}

/** A start takes some hundred ms; one that takes this long has nothing more to do. */
const startMsMax = 30_000;

export async function whenReady({ member, crashed }: Started): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not ready after ${startMsMax} ms`)), startMsMax);
  });
  try {
    await Promise.race([new Promise<void>((ready) => member.start(ready)), crashed, late]);
  } finally {
    clearTimeout(timer);
  }
}
