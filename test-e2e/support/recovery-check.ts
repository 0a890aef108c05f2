// After a restart: everything that the server shows, held against the log of what was asked before and the model of all that came
// earlier. Throws at the first contradiction, otherwise the model stands where the server stands.

import type { Random } from '../../src/io/random.ts';
import { EtcdClient, everything, expectOk } from './etcd-client.ts';
import {
  type Change,
  changeOfEvent,
  describeChanges,
  describeState,
  type KeyState,
  type KeyspaceModel,
  sameChanges,
  sameState,
  stateOf,
} from './keyspace-model.ts';
import type { WriteLog } from './write-log.ts';

/** A state in the past, to be read again by revision. */
interface Sample {
  readonly revision: number;
  readonly keys: ReadonlyMap<string, KeyState>;
}

const pageKeys = 37;
const samplesMax = 2;
const hashesMax = 4;
const leaseQueriesMax = 40;

export interface Recovered {
  readonly revision: number;
  readonly compactRevision: number;
  readonly hash: number;
  /** Revisions that this restart brought beyond what had been checked before. */
  readonly revisionsNew: number;
}

/** Checks the server at `address` and takes its state into `model`. `leases` becomes those that exist. */
export async function checkRecovered(
  address: string,
  model: KeyspaceModel,
  log: WriteLog,
  leases: Set<bigint>,
  random: Random,
): Promise<Recovered> {
  const client = new EtcdClient(address);
  try {
    const before = model.revision;
    const now = expectOk(await client.hashKv(0));
    const revision = now.header!.revision;
    check(revision >= log.seenRevision, `the revision fell: ${log.seenRevision} was seen, it is ${revision}`);
    checkCompaction(log, now.compactRevision);
    const history = await durableHistory(client, model, log, now.compactRevision, revision);
    const samples: Sample[] = [];
    const chosen = new Set([drawRevision(before, revision, random), drawRevision(before, revision, random)]);
    log.replay(model, history, revision, () => {
      if (chosen.has(model.revision)) samples.push({ revision: model.revision, keys: new Map(model.keys) });
    });
    check(model.revision === revision, `the model is at ${model.revision}, the server at ${revision}`);
    model.compact(now.compactRevision);
    await checkKeys(client, model.keys, 0, revision);
    for (const sample of samples.slice(0, samplesMax)) {
      if (sample.revision < now.compactRevision) continue;
      await checkKeys(client, sample.keys, sample.revision, revision);
    }
    await checkLeases(client, model, log, leases);
    const expected = model.hashKv(revision);
    check(
      now.hash === expected,
      `HashKV at ${revision} (compacted ${now.compactRevision}) is ${now.hash}, not ${expected}`,
    );
    await checkHashes(client, model, log);
    return { revision, compactRevision: now.compactRevision, hash: now.hash, revisionsNew: revision - before };
  } finally {
    client.close();
  }
}

function check(condition: boolean, message: string): void {
  if (!condition) throw new Error(message);
}

function drawRevision(after: number, last: number, random: Random): number {
  return last <= after ? -1 : after + 1 + random.below(last - after);
}

function checkCompaction(log: WriteLog, compactRevision: number): void {
  if (compactRevision === log.compactRevision) return;
  check(
    compactRevision > log.compactRevision && log.maybeCompactRevisions.has(compactRevision),
    `compacted at ${compactRevision}; acknowledged was ${log.compactRevision}, in flight ${[...log.maybeCompactRevisions]}`,
  );
}

/**
 * The changes of every revision that the model does not know, by revision: from a watch on the restarted server as far as it goes
 * back, before that from the watch during the load. What the model knows, and what the other watch had shown, must be the same.
 */
async function durableHistory(
  client: EtcdClient,
  model: KeyspaceModel,
  log: WriteLog,
  compactRevision: number,
  last: number,
): Promise<Map<number, Change[]>> {
  const from = Math.max(2, compactRevision);
  const history = new Map<number, Change[]>();
  const events = last < from ? [] : await client.history(from, last);
  for (const event of events) {
    const revision = event.kv!.modRevision;
    const changes = history.get(revision);
    if (changes === undefined) history.set(revision, [changeOfEvent(event)]);
    else changes.push(changeOfEvent(event));
  }
  checkKnown(model, history, from);
  for (const [revision, changes] of log.watched) {
    const durable = history.get(revision);
    if (durable === undefined) {
      check(
        revision < from,
        `revision ${revision} was watched before the kill and is gone: ${describeChanges(changes)}`,
      );
      history.set(revision, changes);
    } else if (!sameChanges(durable, changes)) {
      throw new Error(
        `revision ${revision} was watched as ${describeChanges(changes)}\n  and is now ${describeChanges(durable)}`,
      );
    }
  }
  return history;
}

/** What earlier restarts have shown must still be there, unchanged. */
function checkKnown(model: KeyspaceModel, history: ReadonlyMap<number, Change[]>, from: number): void {
  const known = new Map<number, Change[]>();
  for (const { main, change } of model.changesBetween(from, model.revision)) {
    const changes = known.get(main);
    if (changes === undefined) known.set(main, [change]);
    else changes.push(change);
  }
  for (const [revision, changes] of known) {
    const shown = history.get(revision) ?? [];
    if (sameChanges(changes, shown)) continue;
    throw new Error(
      `revision ${revision} was checked before as ${describeChanges(changes)}\n  and is now ${describeChanges(shown)}`,
    );
  }
}

/** Pages through the keyspace at `revision` (0: now) and compares every field, the counts, and the count alone. */
async function checkKeys(
  client: EtcdClient,
  keys: ReadonlyMap<string, KeyState>,
  revision: number,
  headRevision: number,
): Promise<void> {
  const seen = new Map<string, KeyState>();
  let key = everything.key!;
  for (;;) {
    const page = expectOk(await client.range({ key, rangeEnd: everything.rangeEnd, limit: pageKeys, revision }));
    check(page.header!.revision === headRevision, `a range's header is ${page.header!.revision}, not ${headRevision}`);
    for (const kv of page.kvs) seen.set(kv.key.toString('latin1'), stateOf(kv));
    const left = keys.size - seen.size + page.kvs.length;
    check(page.count === left, `a page at ${revision} counts ${page.count}, ${left} keys are left of ${keys.size}`);
    if (!page.more) break;
    key = Buffer.concat([page.kvs.at(-1)!.key, Buffer.alloc(1)]);
  }
  for (const [name, state] of keys) {
    const shown = seen.get(name);
    if (shown !== undefined && sameState(shown, state)) continue;
    throw new Error(
      `${JSON.stringify(name.slice(0, 30))} at revision ${revision} is ${describeState(shown)}, not ${describeState(state)}`,
    );
  }
  check(seen.size === keys.size, `${seen.size} keys at revision ${revision}, not ${keys.size}: some are invented`);
  const count = expectOk(await client.range({ ...everything, countOnly: true, revision })).count;
  check(count === keys.size, `the count at revision ${revision} is ${count}, not ${keys.size}`);
}

async function checkLeases(
  client: EtcdClient,
  model: KeyspaceModel,
  log: WriteLog,
  leases: Set<bigint>,
): Promise<void> {
  const listed = new Set(expectOk(await client.leases()).leases.map(({ id }) => id));
  for (const id of log.granted) {
    const mayBeGone = log.revoked.has(id) || log.maybeRevoked.has(id);
    check(listed.has(id) || mayBeGone, `the acknowledged lease ${id} is gone`);
  }
  for (const id of listed) {
    check(log.granted.has(id) || log.maybeGranted.has(id), `the lease ${id} was never asked for`);
    check(!log.revoked.has(id), `the lease ${id} was revoked and is there`);
  }
  leases.clear();
  for (const id of listed) leases.add(id);
  const attached = new Map<bigint, string[]>();
  for (const [key, { lease }] of model.keys) {
    if (lease === 0n) continue;
    check(listed.has(lease), `${JSON.stringify(key)} has the lease ${lease}, which does not exist`);
    attached.set(lease, [...(attached.get(lease) ?? []), key]);
  }
  for (const id of [...listed].slice(0, leaseQueriesMax)) {
    const answer = expectOk(await client.timeToLive(id));
    check(
      answer.ttl > 0n && answer.ttl <= answer.grantedTtl,
      `the lease ${id} has ${answer.ttl} of ${answer.grantedTtl} s`,
    );
    const keys = answer.keys.map((key) => key.toString('latin1')).sort();
    const expected = (attached.get(id) ?? []).sort();
    check(
      JSON.stringify(keys) === JSON.stringify(expected),
      `the lease ${id} has ${keys.length} keys, not ${expected.length}`,
    );
  }
}

/** Hashes from before the kill, where the compaction since allows the comparison. */
async function checkHashes(client: EtcdClient, model: KeyspaceModel, log: WriteLog): Promise<void> {
  const comparable = log.hashes.filter((known) => known.compactRevision === model.compactRevision);
  for (const known of comparable.slice(-hashesMax)) {
    const answer = expectOk(await client.hashKv(known.revision));
    if (answer.compactRevision !== known.compactRevision) continue;
    check(
      answer.hash === known.hash && answer.hash === model.hashKv(known.revision),
      `HashKV at ${known.revision} was ${known.hash}, is ${answer.hash}, should be ${model.hashKv(known.revision)}`,
    );
  }
}
