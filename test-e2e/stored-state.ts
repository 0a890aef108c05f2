// What a member has stored, bucket by bucket as etcd's database file holds it, taken by its Snapshot RPC; and in what the members of
// a cluster differ when they have applied the same entries.

import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { openBytes, unwrap } from '../src/snapshot/bolt-fixture.ts';
import { CursorStep } from '../src/snapshot/bolt-reader.ts';
import { type ClusterMember, ctl } from './cluster.ts';
import { until } from './program.ts';

/** Entries by "bucket key", as text; keys and values that are no text in hexadecimal. */
export type StoredState = ReadonlyMap<string, string>;

const INDEX = 'meta consistent_index';

/** By etcdctl snapshot save; the file goes to the folder and is removed. */
export async function storedState(member: ClusterMember, folder: string): Promise<StoredState> {
  const file = join(folder, `${member.name}.snapshot`);
  await ctl([member.endpoint], 'snapshot', 'save', file);
  const state = new Map<string, string>();
  const buckets = openBytes(readFileSync(file)).root().cursor();
  while (buckets.next() === CursorStep.entry) {
    const name = buckets.key.toString();
    state.set(name, 'a bucket');
    const entries = unwrap(buckets.bucket()).cursor();
    let step = entries.next();
    for (; step === CursorStep.entry; step = entries.next()) {
      state.set(`${name} ${shown(entries.key)}`, shown(entries.value));
    }
    if (step === CursorStep.error) throw new Error(`${member.name}: ${entries.error!.reason}`);
  }
  rmSync(file);
  return state;
}

/** Of the members, once a snapshot of each was taken at the same applied index: nothing may be written meanwhile. */
export async function statesAtOneIndex(members: readonly ClusterMember[], folder: string): Promise<StoredState[]> {
  return until('snapshots at one applied index', 30_000, async () => {
    const states = await Promise.all(members.map((member) => storedState(member, folder)));
    const indexes = new Set(states.map((state) => state.get(INDEX)));
    if (indexes.size > 1) throw new Error(`applied: ${[...indexes].join(', ')}`);
    return states;
  });
}

const CONF_STATE = 'meta confState';

/** Whether confState is the same text. */
export function haveSameConfState(one: StoredState, other: StoredState): boolean {
  return one.get(CONF_STATE) === other.get(CONF_STATE);
}

/**
 * A line a difference; empty when the states are equal byte for byte. But the order of ids in confState does not count: an etcd that
 * was started again takes it from a map, until the next change of the membership.
 */
export function differences(one: StoredState, other: StoredState): string[] {
  const lines: string[] = [];
  for (const [entry, value] of one) {
    if (entry === CONF_STATE && sortedIds(value) === sortedIds(other.get(entry))) continue;
    if (other.get(entry) !== value) lines.push(`${entry}: ${short(value)} | ${short(other.get(entry))}`);
  }
  for (const [entry, value] of other) if (!one.has(entry)) lines.push(`${entry}: nothing | ${short(value)}`);
  return lines;
}

function sortedIds(confState = ''): string {
  return confState.replace(/\[([\d,]+)\]/g, (_, ids: string) => `[${ids.split(',').sort().join(',')}]`);
}

function short(value: string | undefined): string {
  if (value === undefined) return 'nothing';
  return value.length <= 300 ? value : `${value.slice(0, 300)}… (${value.length})`;
}

function shown(bytes: Buffer): string {
  const isText = bytes.every((byte) => byte >= 0x20 && byte < 0x7f);
  return isText ? bytes.toString('latin1') : bytes.toString('hex');
}
