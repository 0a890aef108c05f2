// Is a history of concurrent calls linearizable: is there an order of them, each somewhere between its call and its answer, in
// which the answers are those of a sequential model? Wing and Gong's search (1993) with Lowe's memory of what was tried (2017), as
// in Porcupine: walk the calls and answers in time's order, take a call that the model accepts out of the list, start over; at an
// answer whose call was not taken, undo the last one.
//
//   list    call A · call B · answer A · call C · answer B · answer C
//   step    take A → [call B · call C · answer B · answer C] → take B ...
//   stuck   at "answer B" with B not taken: put the last one back and go on behind its call
//
// A call whose answer is unknown (a time-out) may take effect at any later time, or never: it stands in no way, and it is tried only
// where the calls that were answered do not go on by themselves.
//
// Not a proof of anything but the history that it is given, and exponential in the worst case: `stepsMax` ends it with 'unknown'.

import { assert } from '../base/assert.ts';

export interface Operation<Call, Answer> {
  readonly client: number;
  readonly call: Call;
  /** Null: unknown, it may have had its effect or not. */
  readonly answer: Answer | null;
  /** Any clock that orders calls and answers; the end of an unknown one is ignored. */
  readonly startedAt: number;
  readonly endedAt: number;
}

export interface SequentialModel<State, Call, Answer> {
  readonly initial: State;
  /** The state after the call, or null when the model would have answered otherwise. `answer` null: any answer will do. */
  step(state: State, call: Call, answer: Answer | null): State | null;
  /** Equal states have equal hashes (32 bits). */
  hash(state: State): number;
  equal(a: State, b: State): boolean;
}

export type Verdict = 'linearizable' | 'illegal' | 'unknown';

export interface CheckResult {
  readonly verdict: Verdict;
  /** Calls in the longest order that was found; of an illegal history the first answer that nothing explains is next. */
  readonly longest: number;
  readonly steps: number;
  /** The operation (by its place in the history) whose answer stopped the longest attempt; -1: none. */
  readonly stuckAt: number;
}

interface Event {
  /** Place in the history. */
  readonly operation: number;
  readonly isCall: boolean;
  readonly at: number;
  previous: Event | null;
  next: Event | null;
  /** Of a call: its answer. */
  answer: Event | null;
}

interface Taken<State> {
  readonly event: Event;
  readonly state: State;
}

interface Tried<State> {
  readonly words: Int32Array;
  readonly state: State;
}

/** What has been taken, exactly and small: leading calls by their number, the others near them by bits, the unknown ones by bits. */
class TakenSet {
  private readonly rank: Int32Array;
  private readonly knownBits: Uint8Array;
  private readonly unknownWords: Int32Array;
  private frontier = 0;
  private highest = -1;
  private readonly isUnknown: Uint8Array;

  constructor(order: readonly number[], isUnknown: Uint8Array) {
    this.isUnknown = isUnknown;
    this.rank = new Int32Array(isUnknown.length);
    let known = 0;
    let unknown = 0;
    for (const operation of order) this.rank[operation] = isUnknown[operation] === 1 ? unknown++ : known++;
    this.knownBits = new Uint8Array(known);
    this.unknownWords = new Int32Array((unknown + 31) >>> 5);
  }

  set(operation: number, isTaken: boolean): void {
    const rank = this.rank[operation]!;
    if (this.isUnknown[operation] === 1) {
      const bit = 1 << (rank & 31);
      if (isTaken) this.unknownWords[rank >>> 5]! |= bit;
      else this.unknownWords[rank >>> 5]! &= ~bit;
      return;
    }
    this.knownBits[rank] = isTaken ? 1 : 0;
    if (isTaken) {
      if (rank > this.highest) this.highest = rank;
      while (this.frontier < this.knownBits.length && this.knownBits[this.frontier] === 1) this.frontier++;
      return;
    }
    if (rank < this.frontier) this.frontier = rank;
    while (this.highest >= 0 && this.knownBits[this.highest] === 0) this.highest--;
  }

  words(): Int32Array {
    const { frontier, highest, knownBits, unknownWords } = this;
    const span = Math.max(0, highest + 1 - frontier);
    const words = new Int32Array(1 + ((span + 31) >>> 5) + unknownWords.length);
    words[0] = frontier;
    for (let i = 0; i < span; i++) {
      if (knownBits[frontier + i] === 1) words[1 + (i >>> 5)]! |= 1 << (i & 31);
    }
    words.set(unknownWords, words.length - unknownWords.length);
    return words;
  }
}

function hashWords(words: Int32Array, seed: number): number {
  let hash = seed;
  for (let i = 0; i < words.length; i++) hash = Math.imul(hash ^ words[i]!, 0x9e3779b1) ^ (hash >>> 15);
  return hash | 0;
}

function sameWords(a: Int32Array, b: Int32Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export function checkLinearizable<State, Call, Answer>(
  model: SequentialModel<State, Call, Answer>,
  history: readonly Operation<Call, Answer>[],
  stepsMax: number = 5_000_000,
): CheckResult {
  return new Search(model, history, stepsMax).run();
}

class Search<State, Call, Answer> {
  private readonly model: SequentialModel<State, Call, Answer>;
  private readonly history: readonly Operation<Call, Answer>[];
  private readonly stepsMax: number;
  private readonly head: Event = { operation: -1, isCall: false, at: 0, previous: null, next: null, answer: null };
  private readonly taken: Taken<State>[] = [];
  private readonly takenSet: TakenSet;
  private readonly tried = new Map<number, Tried<State>[]>();
  private readonly unknownCalls: Event[] = [];
  private readonly isTakenUnknown: Uint8Array;
  private state: State;
  private steps = 0;
  private longest = 0;
  private stuckAt = -1;
  private knownLeft: number;

  constructor(
    model: SequentialModel<State, Call, Answer>,
    history: readonly Operation<Call, Answer>[],
    stepsMax: number,
  ) {
    this.model = model;
    this.history = history;
    this.stepsMax = stepsMax;
    this.state = model.initial;
    const isUnknown = new Uint8Array(history.length);
    history.forEach(({ answer }, i) => {
      isUnknown[i] = answer === null ? 1 : 0;
    });
    const order = history.map((_, i) => i).sort((a, b) => history[a]!.startedAt - history[b]!.startedAt || a - b);
    this.takenSet = new TakenSet(order, isUnknown);
    this.isTakenUnknown = new Uint8Array(history.length);
    this.knownLeft = history.length - isUnknown.reduce((sum, one) => sum + one, 0);
    this.link(order, isUnknown);
  }

  /** Calls and answers of what was answered become a list in time's order; the unknown calls stand beside it. */
  private link(order: readonly number[], isUnknown: Uint8Array): void {
    const events: Event[] = [];
    for (const operation of order) {
      const { startedAt, endedAt } = this.history[operation]!;
      const call: Event = { operation, isCall: true, at: startedAt, previous: null, next: null, answer: null };
      if (isUnknown[operation] === 1) {
        this.unknownCalls.push(call);
        continue;
      }
      assert(endedAt >= startedAt, 'an operation ends before it begins');
      call.answer = { operation, isCall: false, at: endedAt, previous: null, next: null, answer: null };
      events.push(call, call.answer);
    }
    // At the same moment calls come first: what touches may overlap.
    events.sort(inTime);
    let last = this.head;
    for (const event of events) {
      last.next = event;
      event.previous = last;
      last = event;
    }
  }

  run(): CheckResult {
    let event = this.head.next;
    while (this.knownLeft > 0) {
      assert(event !== null, 'what is left of the list ends with an answer');
      if (this.steps > this.stepsMax) return this.result('unknown');
      if (event.isCall) {
        if (this.tryTake(event)) event = this.head.next;
        else event = event.next;
        continue;
      }
      // An answer whose call is not taken: only an unknown call can help from here, else something before was wrong.
      if (this.taken.length > this.longest || this.stuckAt === -1) {
        this.longest = this.taken.length;
        this.stuckAt = event.operation;
      }
      if (this.takeUnknown(0, event.at)) {
        event = this.head.next;
        continue;
      }
      event = this.undo();
      if (event === null) return this.result('illegal');
    }
    return this.result('linearizable');
  }

  /** Puts the last one back; where to go on, or null: everything was tried. */
  private undo(): Event | null {
    for (;;) {
      const last = this.taken.pop();
      if (last === undefined) return null;
      const { event, state } = last;
      this.state = state;
      this.takenSet.set(event.operation, false);
      if (event.answer !== null) {
        this.unlift(event);
        this.knownLeft++;
        return event.next;
      }
      this.isTakenUnknown[event.operation] = 0;
      // The next unknown one instead of it.
      const place = this.unknownCalls.indexOf(event);
      const until = this.firstAnswerAt();
      if (this.takeUnknown(place + 1, until)) return this.head.next;
    }
  }

  /** Nothing may be taken before a call whose answer came earlier is: unknown calls later than that come later. */
  private firstAnswerAt(): number {
    let event = this.head.next;
    while (event?.isCall === true) event = event.next;
    return event === null ? Infinity : event.at;
  }

  private takeUnknown(from: number, until: number): boolean {
    for (let i = from; i < this.unknownCalls.length; i++) {
      const call = this.unknownCalls[i]!;
      if (call.at > until) return false;
      if (this.isTakenUnknown[call.operation] === 1) continue;
      if (!this.tryTake(call)) continue;
      this.isTakenUnknown[call.operation] = 1;
      return true;
    }
    return false;
  }

  private tryTake(event: Event): boolean {
    const { model, history, state } = this;
    const { call, answer } = history[event.operation]!;
    this.steps++;
    const next = model.step(state, call, answer);
    if (next === null) return false;
    // An unknown call without an effect is of no use.
    if (answer === null && model.equal(state, next)) return false;
    this.takenSet.set(event.operation, true);
    if (!this.remember(next)) {
      this.takenSet.set(event.operation, false);
      return false;
    }
    this.taken.push({ event, state });
    this.state = next;
    if (event.answer !== null) {
      lift(event);
      this.knownLeft--;
    }
    return true;
  }

  /** False: the same was taken before, in another order, with the same outcome. */
  private remember(state: State): boolean {
    const words = this.takenSet.words();
    const hash = hashWords(words, this.model.hash(state));
    const same = this.tried.get(hash);
    if (same === undefined) {
      this.tried.set(hash, [{ words, state }]);
      return true;
    }
    for (const one of same) if (sameWords(one.words, words) && this.model.equal(one.state, state)) return false;
    same.push({ words, state });
    return true;
  }

  private unlift(event: Event): void {
    relink(event.answer!);
    relink(event);
  }

  private result(verdict: Verdict): CheckResult {
    const { longest, steps, stuckAt } = this;
    const isGood = verdict === 'linearizable';
    return { verdict, longest: isGood ? this.taken.length : longest, steps, stuckAt: isGood ? -1 : stuckAt };
  }
}

function inTime(a: Event, b: Event): number {
  if (a.at !== b.at) return a.at < b.at ? -1 : 1;
  return Number(b.isCall) - Number(a.isCall) || a.operation - b.operation;
}

/** Takes a call and its answer out of the list; they keep their places for relink(). */
function lift(event: Event): void {
  unlink(event);
  unlink(event.answer!);
}

function unlink(event: Event): void {
  event.previous!.next = event.next;
  if (event.next !== null) event.next.previous = event.previous;
}

function relink(event: Event): void {
  event.previous!.next = event;
  if (event.next !== null) event.next.previous = event;
}

/** Splits a history that touches one part a call (a key, say); each part is checked on its own: linearizability is local. */
export function partition<Call, Answer>(
  history: readonly Operation<Call, Answer>[],
  partOf: (call: Call) => string,
): Map<string, Operation<Call, Answer>[]> {
  const parts = new Map<string, Operation<Call, Answer>[]>();
  for (const operation of history) {
    const name = partOf(operation.call);
    const part = parts.get(name);
    if (part === undefined) parts.set(name, [operation]);
    else part.push(operation);
  }
  return parts;
}
