// Failpoints by the gofail contract that etcd's test tools speak: named places that an operator of tests makes panic or sleep.
// This is the registry and the check; the HTTP server and the environment variables are io/failpoint-http.ts. Not built in
// unless asked for: until armFailpoints() ran, failpoint() reads one word and returns.
//
// State lives in shared memory, so that a point armed through the main thread's HTTP server also fires in worker threads:
//   word 0             number of points that are on (the fast check)
//   word 1 + 8 * index action (0 off, 1 panic, 2 sleep)
//        + 1           milliseconds to sleep
//        + 2           hits left that still act, -1 for without end (`3*panic`)
//        + 3           chance in ten-thousandths, 1,000,000 for always (`50.0%panic`)
//        + 4           times reached while on
//        + 5..7        unused
//
// A panic must end the whole process at once and with a failure, also from a worker, where process.exit() would end only the
// worker: the control's panic sends SIGKILL to the own process. That leaves no time for a flush, an exit handler or an LMDB
// close, as a Go panic leaves none; parents see "killed by signal 9", a shell 137. A sleep blocks its whole thread
// (Atomics.wait), where gofail blocks one goroutine: a sleep on the core thread also stops heartbeats.

import { assert } from './assert.ts';

/** Every point of the server. The names are etcd's wherever the stage exists (server/v3 `gofail:` comments). */
export const failpointNames = [
  'beforeCommit',
  'afterCommit',
  'commitBeforePreCommitHook',
  'commitAfterPreCommitHook',
  'beforeStartDBTxn',
  'afterStartDBTxn',
  'beforeWritebackBuf',
  'afterWritebackBuf',
  'raftBeforeSave',
  'raftAfterSave',
  'raftBeforeLeaderSend',
  'raftBeforeFollowerSend',
  'raftBeforeSaveSnap',
  'raftAfterSaveSnap',
  'raftBeforeApplySnap',
  'raftAfterApplySnap',
  'raftAfterWALRelease',
  'walBeforeSync',
  'applyBeforeOpenSnapshot',
  'applyAfterOpenSnapshot',
  'defragBeforeCopy',
  'defragBeforeRename',
  'compactBeforeCommitScheduledCompact',
  'compactAfterCommitScheduledCompact',
  'compactBeforeSetFinishedCompact',
  'compactAfterSetFinishedCompact',
  'compactBeforeCommitBatch',
  'compactAfterCommitBatch',
  'beforeApplyOneConfChange',
  'beforeSendWatchResponse',
] as const;
export type FailpointName = (typeof failpointNames)[number];

/** What the environment lends to an armed registry. */
export interface FailpointControl {
  /** Ends the process at once; must not return. */
  panic(name: string): never;
  /** Uniform in [0, 1), for `50.0%panic`. */
  random(): number;
}

const Action = { off: 0, panic: 1, sleep: 2 } as const;
const wordsPerPoint = 8;
const always = 1_000_000;
const sharedBytes = 4 * (1 + failpointNames.length * wordsPerPoint);
/** A sleep of a day is a mistake in a test; it also keeps the word in range. */
const sleepMsMax = 24 * 60 * 60 * 1000;

let words: Int32Array = new Int32Array(1);
let control: FailpointControl | null = null;
const indexes: ReadonlyMap<string, number> = new Map(failpointNames.map((name, index) => [name, index]));
/** Terms as they were given, for the listing; only in the thread that sets them. */
const terms: Map<string, string> = new Map();
const sleeper: Int32Array<SharedArrayBuffer> = new Int32Array(new SharedArrayBuffer(4));

/** A place that tests can make fail. Budget: one load and one compare when nothing is on. */
export function failpoint(name: FailpointName): void {
  if (words[0] !== 0) hit(name);
}

/**
 * Makes failpoint() look at `shared` from now on. The main thread calls it without `shared` and hands the result to its
 * workers, which call it with it.
 */
export function armFailpoints(environment: FailpointControl, shared?: SharedArrayBuffer): SharedArrayBuffer {
  const buffer = shared ?? new SharedArrayBuffer(sharedBytes);
  assert(buffer.byteLength === sharedBytes, 'failpoint memory of another size');
  words = new Int32Array(buffer);
  control = environment;
  return buffer;
}

/** Takes the registry back to its unarmed state; for tests. */
export function disarmFailpoints(): void {
  words = new Int32Array(1);
  control = null;
  terms.clear();
}

function hit(name: string): void {
  const index = indexes.get(name);
  assert(index !== undefined, 'failpoint without an entry in the table');
  assert(control !== null, 'failpoint on without control');
  const base = 1 + index * wordsPerPoint;
  const action = Atomics.load(words, base);
  if (action === Action.off) return;
  Atomics.add(words, base + 4, 1);
  if (words[base + 3]! < always && control.random() * always >= words[base + 3]!) return;
  if (!takeHit(base)) return;
  if (action === Action.panic) control.panic(name);
  Atomics.wait(sleeper, 0, 0, words[base + 1]!);
}

/** Takes one of the hits left, or returns false when `n*` is used up. */
function takeHit(base: number): boolean {
  for (;;) {
    const left = Atomics.load(words, base + 2);
    if (left < 0) return true;
    if (left === 0) return false;
    if (Atomics.compareExchange(words, base + 2, left, left - 1) === left) return true;
  }
}

interface Term {
  readonly action: number;
  readonly sleepMs: number;
  readonly hits: number;
  readonly chance: number;
}

const termPattern: RegExp =
  /^(?:(?<percent>\d+(?:\.\d+)?)%)?(?:(?<hits>\d+)\*)?(?:(?<off>off)|(?<panic>panic)(?:\(.*\))?|sleep\((?:(?<ms>\d+)|"(?<duration>[^"]*)")\))$/s;
const unitMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** Milliseconds of a Go duration ("1s", "1m30s", "0.5s"), or null. */
function durationMs(text: string): number | null {
  if (!/^(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+$/.test(text)) return text === '0' ? 0 : null;
  let sum = 0;
  for (const [, count, unit] of text.matchAll(/(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)/g))
    sum += Number(count) * unitMs[unit!]!;
  return sum;
}

function parseTerm(text: string): Term | null {
  const groups = termPattern.exec(text.trim())?.groups;
  if (groups === undefined) return null;
  const chance = groups['percent'] === undefined ? always : Math.round(Number(groups['percent']) * (always / 100));
  const hits = groups['hits'] === undefined ? -1 : Number(groups['hits']);
  if (chance > always || hits > 0x7fff_ffff) return null;
  if (groups['off'] !== undefined) return { action: Action.off, sleepMs: 0, hits: -1, chance: always };
  if (groups['panic'] !== undefined) return { action: Action.panic, sleepMs: 0, hits, chance };
  const sleepMs = groups['ms'] === undefined ? durationMs(groups['duration']!) : Number(groups['ms']);
  if (sleepMs === null || sleepMs > sleepMsMax) return null;
  return { action: Action.sleep, sleepMs: Math.ceil(sleepMs), hits, chance };
}

const errorNotExist: string = 'failpoint: failpoint does not exist';
const errorDisabled: string = 'failpoint: failpoint is disabled';

/** Sets a point to a term (`panic`, `sleep("1s")`, `sleep(1000)`, `off`, `3*panic`, `50.0%sleep(10)`). The error, or null. */
export function setFailpoint(name: string, text: string): string | null {
  assert(control !== null, 'failpoints not armed');
  const index = indexes.get(name);
  if (index === undefined) return errorNotExist;
  const term = parseTerm(text);
  if (term === null) return `failpoint: could not parse ${JSON.stringify(text)}`;
  const base = 1 + index * wordsPerPoint;
  const wasOn = Atomics.load(words, base) !== Action.off;
  // Off while its words change, so that another thread never acts on half a term.
  Atomics.store(words, base, Action.off);
  words[base + 1] = term.sleepMs;
  words[base + 2] = term.hits;
  words[base + 3] = term.chance;
  words[base + 4] = 0;
  Atomics.store(words, base, term.action);
  const isOn = term.action !== Action.off;
  if (isOn !== wasOn) Atomics.add(words, 0, isOn ? 1 : -1);
  if (isOn) terms.set(name, text.trim());
  else terms.delete(name);
  return null;
}

/** Switches a point off. An error when it was off already, as in gofail. */
export function clearFailpoint(name: string): string | null {
  if (!indexes.has(name)) return errorNotExist;
  if (!terms.has(name)) return errorDisabled;
  return setFailpoint(name, 'off');
}

/** The term of a point and how often it was reached while on, or the error. */
export function failpointStatus(name: string): { readonly term: string; readonly hits: number } | string {
  const index = indexes.get(name);
  if (index === undefined) return errorNotExist;
  const term = terms.get(name);
  if (term === undefined) return errorDisabled;
  return { term, hits: Atomics.load(words, 1 + index * wordsPerPoint + 4) };
}

/** All points as `name=term` lines in name order, the term empty when off. */
export function listFailpoints(): string {
  const lines: string[] = [];
  for (const name of [...failpointNames].sort()) lines.push(`${name}=${terms.get(name) ?? ''}`);
  return `${lines.join('\n')}\n`;
}

/** Applies `name=term;name=term` (GOFAIL_FAILPOINTS, or a PUT on /failpoints). The first error, or null. */
export function setFailpoints(text: string): string | null {
  for (const pair of text.split(';')) {
    if (pair.trim() === '') continue;
    const equals = pair.indexOf('=');
    if (equals < 0) return `fail to parse failpoint: ${JSON.stringify(pair)}`;
    const error = setFailpoint(pair.slice(0, equals).trim(), pair.slice(equals + 1));
    if (error !== null) return error;
  }
  return null;
}
