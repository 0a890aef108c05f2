// What may differ between keelson's core and etcd's as it is, in the settled form of raft-lockstep.ts. All state and all that
// leaves a member is compared but for this, which follows from making appends for everybody with the Ready:
//
// - Empty appends: etcd sends one at every commit; ours only where the follower can commit more by it.
// - Appends with entries go out one sooner at times: ours are for all followers that can take one, etcd's for the one that
//   answered. So to each follower etcd's entries are the beginning of ours, cut into messages as may be; what more ours sends is
//   counted.
// - Heartbeats of one Ready are one: the last, as reads that wait together share their position.
// - The order among messages to different members, and of appends, snapshots and heartbeats among the others.
//
// After the comparison etcd takes over how ours sends to its followers (`flow`), so that the next command starts from the same.

import { ProgressState } from '../raft/progress.ts';
import type { Step } from './raft-member.ts';

const SETTLE = / settle /;
const SNAPSHOT = String(ProgressState.snapshot);

export class Relation {
  /**
   * Members' turns that were compared; those in which all entries were sent equally, too; entries and snapshots that ours
   * sent and etcd did not in that turn.
   */
  readonly counts: { turns: number; equal: number; surplus: number } = { turns: 0, equal: 0, surplus: 0 };

  /** Null, or what is not as it must be. */
  difference(step: Step, answer: string): string | null {
    if (step.expected === answer) {
      if (SETTLE.test(step.command)) this.#countSettled(true);
      return null;
    }
    const ours = step.expected.split('\t');
    const theirs = answer.split('\t');
    if (ours[0] !== theirs[0]) return 'results differ';
    const isSettle = SETTLE.test(step.command);
    if (stateOf(ours[1]!, isSettle) !== stateOf(theirs[1]!, isSettle)) return 'states differ';
    if (ours[2] !== theirs[2]) return 'Readies differ';
    // Before the Ready etcd has sent and ours has not.
    if (!isSettle) return null;
    return this.#messagesDifference(ours, theirs);
  }

  #messagesDifference(ours: readonly string[], theirs: readonly string[]): string | null {
    const oursTo = byReceiver(ours[3]!);
    const theirsTo = byReceiver(theirs[3]!);
    const flow = flowOf(ours[4]!);
    const theirFlow = flowOf(theirs[4]!);
    let surplus = 0;
    for (const to of new Set([...oursTo.keys(), ...theirsTo.keys(), ...flow.keys()])) {
      const a = oursTo.get(to) ?? NOTHING;
      const b = theirsTo.get(to) ?? NOTHING;
      if (a.others.join(';') !== b.others.join(';')) return `messages to ${to} differ`;
      if (a.heartbeat !== b.heartbeat) return `heartbeats to ${to} differ`;
      if (b.appends.some((text, i) => text !== a.appends[i])) return `appends to ${to} differ`;
      if (b.commitWithEntries > a.commit) return `commit indexes to ${to} differ`;
      surplus += a.appends.length - b.appends.length;
      if (a.appends.length === b.appends.length && flow.get(to) !== theirFlow.get(to)) return `flow to ${to} differs`;
    }
    this.counts.surplus += surplus;
    this.#countSettled(surplus === 0);
    return null;
  }

  #countSettled(isEqual: boolean): void {
    this.counts.turns++;
    if (isEqual) this.counts.equal++;
  }
}

interface Sent {
  /** Each entry, with what it follows where that is not the one before it; and snapshots. */
  readonly appends: string[];
  readonly others: string[];
  /** The last one. */
  heartbeat: string;
  /** The highest that an append carries, and that one with entries carries. */
  commit: number;
  commitWithEntries: number;
}

const NOTHING: Sent = { appends: [], others: [], heartbeat: '', commit: 0, commitWithEntries: 0 };

function stateOf(text: string, isSettle: boolean): string {
  return isSettle ? text : text.replace(/ ready=\w+/, '');
}

function byReceiver(text: string): Map<string, Sent> {
  const sent = new Map<string, Sent>();
  for (const message of text.replace(/ then $/, '').split(';')) {
    if (message === '') continue;
    const [type, route] = message.split(' ');
    const to = route!.split('>')[1]!;
    const list = sent.get(to) ?? { ...NOTHING, appends: [], others: [] };
    sent.set(to, list);
    if (type === 'app') addAppend(list, message);
    else if (type === 'snap') list.appends.push(message);
    else if (type === 'heartbeat') list.heartbeat = message;
    else list.others.push(message);
  }
  return sent;
}

function addAppend(list: Sent, message: string): void {
  const field = (name: string): string => new RegExp(` ${name}=(\\S+)`).exec(message)?.[1] ?? '0';
  const commit = Number(field('commit'));
  list.commit = Math.max(list.commit, commit);
  const entries = field('entries');
  if (entries === '0') return;
  list.commitWithEntries = Math.max(list.commitWithEntries, commit);
  const term = field('term');
  const before = `${field('logTerm')}/${field('index')}`;
  for (const [i, entry] of entries.slice(1, -1).split(',').entries()) {
    const isNext = i > 0 || list.appends.at(-1)?.startsWith(`${term}: ${before}/`) === true;
    list.appends.push(isNext ? `${term}: ${entry}` : `${term}: ${entry} after ${before}`);
  }
}

/**
 * Of each follower: state, next, paused and pending snapshot. Windows have no bounds in this form. During a snapshot `next`
 * means nothing, and a stale refusal moves etcd's.
 */
function flowOf(text: string): Map<string, string> {
  const flow = new Map<string, string>();
  for (const one of text.split(' ').filter((word) => word !== '')) {
    const [id, state, next, paused, pending] = one.split(':');
    flow.set(id!, state === SNAPSHOT ? `${state}:${pending}` : `${state}:${next}:${paused}:${pending}`);
  }
  return flow;
}
