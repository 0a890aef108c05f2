// One member of a lock-step group: keelson's RawNode with its driver, and each command to it in the words of keelson-raft, so
// that etcd's RawNode gets the same one. Who commands what is in raft-lockstep.ts.
//
// What leaves a member of ours in another form than one of etcd's is brought together here, and nowhere else on our side:
// - etcd's leader replaces its own refused configuration change by an empty entry; ours refuses, and proposes an empty one.
// - etcd ignores that entries are durable when the term has changed since they were given to write, or the last of them was
//   replaced, until the next write says it again: such a write is acknowledged together with the first that is not ignored.
// - To etcd a received snapshot is applied when it is durable: it is reported applied at once, after all that came before it.

import { assert } from '../base/assert.ts';
import { changeConfiguration, restoreConfiguration, toConfState } from '../raft/conf-change.ts';
import { type RaftConfig, ReadOnlyOption } from '../raft/config.ts';
import { MemoryStorage } from '../raft/memory-storage.ts';
import { type ProposeResult, ProposeStatus } from '../raft/propose.ts';
import { Raft } from '../raft/raft.ts';
import { RawNode, type Ready } from '../raft/raw-node.ts';
import { type ConfState, type Entry, EntryType, type Message, NO_BYTES, type NodeId } from '../raft/types.ts';
import { decodeConfChange, encodeConfChange } from './raft-conf-change.ts';
import { confText, dataText, messageText, Outcome, paddedData, progressText } from './raft-text.ts';

/** The state machine is no more than where it is. */
interface Machine {
  readonly applied: number;
  readonly confState: ConfState;
}

interface Write {
  readonly ready: Ready;
  /** Of the member and of its log's end, when it was given. */
  readonly term: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
}

/** A command and what etcd has to answer. */
export interface Step {
  readonly command: string;
  readonly expected: string;
}

/** What varies between starts; the rest of RaftConfig is the member's. */
export type MemberConfig = Omit<RaftConfig, 'id' | 'storage' | 'applied' | 'logger' | 'random' | 'decodeConfChange'>;

const logger = { debugEnabled: false, debug: (): void => {}, info: (): void => {}, warn: (): void => {} };

export class RaftMember {
  readonly id: NodeId;
  readonly #emit: (step: Step) => void;
  readonly #random: (n: number) => number;
  readonly #bootstrap: readonly NodeId[];
  readonly storage: MemoryStorage;
  /** Null while it is down. */
  node: RawNode | null = null;
  #raft: Raft | null = null;
  #timeout = 0;
  writes: Write[] = [];
  applies: Ready[] = [];
  machine: Machine;
  /** What the state machine holds durably: at or after the storage's snapshot, at or before the stored commit index. */
  flushed: Machine;

  /** With `bootstrap` the storage is empty and the members named there make the group's first log. */
  constructor(
    id: NodeId,
    confState: ConfState,
    bootstrap: readonly NodeId[],
    random: (n: number) => number,
    emit: (step: Step) => void,
  ) {
    this.id = id;
    this.#emit = emit;
    this.#random = random;
    this.#bootstrap = bootstrap;
    this.storage = new MemoryStorage(confState);
    this.machine = { applied: 0, confState };
    this.flushed = this.machine;
    emit({ command: `0 storage ${id} ${confText(confState)}`, expected: 'ok' });
  }

  get raft(): Raft {
    assert(this.#raft !== null, 'the member is down');
    return this.#raft;
  }

  get isLeader(): boolean {
    return this.node?.isLeader ?? false;
  }

  /** Runs `work` on ours and gives `words` to the other side. */
  #run(words: string | (() => string), work: (node: RawNode, outcome: Outcome) => void): Outcome {
    const outcome = new Outcome();
    let expected: string;
    try {
      assert(this.node !== null, 'the member is down');
      work(this.node, outcome);
      this.node.checkInvariants();
      expected = outcome.text(this.raft, this.node.hasReady());
    } catch (error) {
      expected = `panic: ${error instanceof Error ? error.stack : String(error)}`;
    }
    const [name, ...rest] = (typeof words === 'string' ? words : words()).split(' ');
    this.#emit({ command: [this.#timeout, name, this.id, ...rest].join(' '), expected });
    return outcome;
  }

  // --- Start and end ---

  start(config: MemberConfig, isAsync: boolean): void {
    this.machine = this.flushed;
    const { applied, confState } = this.machine;
    this.storage.setConfState(confState);
    const words = `start ${applied} ${confText(confState)} ${configText(config)} async=${isAsync ? 1 : 0}`;
    const { electionTick } = config;
    const random = (n: number): number => {
      const drawn = this.#random(n);
      this.#timeout = electionTick + drawn;
      return drawn;
    };
    const { id, storage } = this;
    [this.node, this.#raft] = newNode({ ...config, id, storage, applied, logger, random, decodeConfChange });
    this.#run(words, () => {});
    const isNew = storage.lastIndex() === 0 && storage.initialState().hardState.term === 0;
    if (isNew && this.#bootstrap.includes(id)) this.#bootstrapNode();
  }

  #bootstrapNode(): void {
    const peers = this.#bootstrap.map((id) => {
      const context = Buffer.from(`member ${id}`);
      return { id, data: encodeConfChange({ type: 0, nodeId: id, context }), context };
    });
    const words = peers.map((peer) => `${peer.id}:${peer.context.toString('hex')}`);
    this.#run(`bootstrap ${words.join(' ')}`, (node) => node.bootstrap(peers));
  }

  /** The oldest `count` writes in flight reach the disk, the others are lost; so is everything in memory. */
  crash(count: number): void {
    for (const { ready } of this.writes.slice(0, count)) this.#write(ready);
    this.node = null;
    this.#raft = null;
    this.writes = [];
    this.applies = [];
    this.#emit({ command: `0 crash ${this.id} ${count}`, expected: 'ok' });
  }

  // --- Inputs ---

  tick(): void {
    this.#run('tick', (node) => node.tick());
  }

  campaign(): void {
    this.#run('campaign', (node) => node.campaign());
  }

  propose(datas: readonly Buffer[]): void {
    this.#run(`propose ${datas.map(dataText).join(' ')}`, (node, outcome) => {
      const result = datas.length === 1 ? node.propose(datas[0]!) : node.proposeBatch(datas);
      if (result.status === ProposeStatus.dropped) outcome.result = 'dropped';
    });
  }

  proposeConfChange(type: EntryType, data: Buffer): void {
    const form = type === EntryType.confChange ? 'v1' : 'v2';
    this.#run(`conf-change ${form} ${data.toString('hex')}`, (node, outcome) => {
      let result = node.proposeConfChange(type, data);
      if (isRefusedConfChange(result)) result = node.propose(NO_BYTES);
      if (result.status === ProposeStatus.dropped) outcome.result = 'dropped';
    });
  }

  step(message: Message): void {
    this.#run(`step ${messageText(message)}`, (node) => node.step(message));
  }

  read(token: string): void {
    this.#run(`read ${token}~${token.length}`, (node) => void node.readIndex(paddedData(token, 0)));
  }

  transfer(to: NodeId): void {
    this.#run(`transfer ${to}`, (node) => node.transferLeader(to));
  }

  forgetLeader(): void {
    this.#run('forget-leader', (node) => node.forgetLeader());
  }

  reportUnreachable(peer: NodeId): void {
    this.#run(`unreachable ${peer}`, (node) => node.reportUnreachable(peer));
  }

  reportSnapshot(peer: NodeId, succeeded: boolean): void {
    this.#run(`snapshot-status ${peer} ${succeeded ? 'ok' : 'failed'}`, (node) => node.reportSnapshot(peer, succeeded));
  }

  // --- The loop of an asynchronous driver ---

  /** Returns what is to be sent now. */
  ready(): readonly Message[] {
    // Every answer says whether there is one.
    if (this.node?.hasReady() !== true) return [];
    const outcome = this.#run('ready', (node, out) => {
      const ready = node.ready();
      takeReady(out, ready);
      out.messages.push(...ready.messages);
      out.after.push(...ready.messagesAfterPersist);
      if (ready.sequence > 0) {
        out.result = 'write';
        const { lastIndex, lastTerm } = this.raft.log;
        this.writes.push({ ready, term: node.term, lastIndex, lastTerm });
      }
      if (ready.committedEntries.length > 0) this.applies.push(ready);
    });
    return outcome.messages;
  }

  /** Acknowledges the oldest `wish` writes, or as many as must go together. Returns what is to be sent now. */
  persist(wish: number): readonly Message[] {
    const sent: Message[] = [];
    if (this.node === null || this.writes.length === 0) return sent;
    let count = this.writes.findIndex((write, i) => i + 1 >= wish && this.#isCurrent(write)) + 1;
    if (count === 0) {
      if (!this.#isCurrent(this.writes.at(-1)!)) sent.push(...this.ready());
      count = this.writes.length;
    }
    if (this.writes.slice(0, count).some(({ ready }) => ready.snapshot !== null)) {
      while (this.applies.length > 0) this.apply();
    }
    const done = this.writes.splice(0, count);
    this.#run(`persist ${count}`, (node) => {
      for (const { ready } of done) this.#write(ready);
      node.persisted(done.at(-1)!.ready.sequence);
      for (const { ready } of done) if (ready.snapshot !== null) this.#takeSnapshot(node, ready);
    });
    for (const { ready } of done) sent.push(...ready.messagesAfterPersist);
    return sent;
  }

  /** etcd takes its end for durable. */
  #isCurrent(write: Write): boolean {
    const { log, term } = this.raft;
    return write.term === term && (write.lastIndex <= log.stableIndex || log.term(write.lastIndex) === write.lastTerm);
  }

  #write(ready: Ready): void {
    if (ready.snapshot !== null) {
      this.storage.applySnapshot(ready.snapshot);
      this.flushed = { applied: ready.snapshot.meta.index, confState: ready.snapshot.meta.confState };
    }
    this.storage.append(ready.entries);
    if (ready.hardState !== null) this.storage.setHardState(ready.hardState);
  }

  #takeSnapshot(node: RawNode, ready: Ready): void {
    const { index, confState } = ready.snapshot!.meta;
    this.machine = { applied: index, confState };
    node.applied(index);
  }

  /** Applies the oldest committed entries. */
  apply(): void {
    const ready = this.applies.shift();
    if (ready === undefined) return;
    const changes = this.#changesOf(ready.committedEntries);
    this.#run(`apply ${voidText(changes)}`, (node) => {
      this.#applyEntries(node, ready.committedEntries, changes);
      node.applied(this.machine.applied);
    });
  }

  #applyEntries(node: RawNode, entries: readonly Entry[], changes: readonly AppliedChange[]): void {
    let { applied, confState } = this.machine;
    for (const { change } of changes) confState = node.applyConfChange(change);
    for (const entry of entries) assert(entry.index === ++applied, 'entries must be applied in order');
    this.machine = { applied, confState };
  }

  /** The configuration changes among `entries`, voided where etcd's membership rules would refuse them. */
  #changesOf(entries: readonly Entry[]): AppliedChange[] {
    let { confState } = this.machine;
    const changes: AppliedChange[] = [];
    for (const entry of entries) {
      if (entry.type === EntryType.normal) continue;
      const decoded = decodeConfChange(entry);
      const from = restoreConfiguration(confState);
      assert(from.ok && decoded !== null, 'a change or configuration that can not be read');
      let change = decoded;
      let result = changeConfiguration(from.configuration, change);
      const isVoid = !result.ok;
      if (isVoid) {
        change = { ...change, changes: change.changes.map((one) => ({ ...one, nodeId: 0n })) };
        result = changeConfiguration(from.configuration, change);
      }
      assert(result.ok, 'a change was committed that its leader had to refuse');
      confState = toConfState(result.configuration);
      changes.push({ change, isVoid });
    }
    return changes;
  }

  /** The database reaches the disk: a start replays from here. etcd needs the commit index to be there as well. */
  flush(): void {
    if (this.machine.applied <= this.storage.initialState().hardState.commit) this.flushed = this.machine;
  }

  /** A snapshot of the state machine, and the log without its oldest entries but `kept`. */
  compact(kept: number): void {
    this.flush();
    const { applied, confState } = this.machine;
    const { storage } = this;
    if (
      this.flushed.applied !== applied ||
      applied <= storage.snapshot()!.meta.index ||
      applied > storage.lastIndex()
    ) {
      return;
    }
    const data = paddedData(`ps${applied}`, 0);
    const first = Math.max(0, applied - kept);
    const isCut = first >= storage.firstIndex();
    const words = `compact ${applied} ${confText(confState)} ${dataText(data)} ${isCut ? first : 0}`;
    this.#run(words, () => {
      storage.createSnapshot(applied, confState, data);
      if (isCut) storage.compact(first);
    });
  }

  // --- The loop of etcd's server ---

  /** Everything that there is to do, until nothing is left. Returns what is to be sent. */
  settle(): readonly Message[] {
    const changes: AppliedChange[] = [];
    const words = (): string => `settle ${voidText(changes)}`;
    const outcome = this.#run(words, (node, out) => {
      while (node.hasReady()) {
        const ready = node.ready();
        takeReady(out, ready);
        this.#write(ready);
        const own = this.#changesOf(ready.committedEntries);
        changes.push(...own);
        this.#applyEntries(node, ready.committedEntries, own);
        node.persisted(ready.sequence);
        if (ready.snapshot !== null) this.#takeSnapshot(node, ready);
        if (ready.committedEntries.length > 0) node.applied(this.machine.applied);
        out.messages.push(...ready.messages, ...ready.messagesAfterPersist);
      }
    });
    return outcome.messages;
  }

  /** Takes over on the other side how ours sends to its followers: raft-relation.ts. */
  shareFlow(): void {
    if (!this.isLeader) return;
    const peers = this.raft.tracker.peers.map(progressText);
    this.#run(`flow ${peers.join(' ')}`, () => {});
  }
}

interface AppliedChange {
  readonly change: NonNullable<ReturnType<typeof decodeConfChange>>;
  readonly isVoid: boolean;
}

function voidText(changes: readonly AppliedChange[]): string {
  return changes.map((one) => (one.isVoid ? '1' : '0')).join('');
}

/** A leader's own refusal of a configuration change, for which etcd's appends an empty entry. */
function isRefusedConfChange(result: Readonly<ProposeResult>): boolean {
  return (
    result.reason === 'configuration change pending' ||
    result.reason === 'must leave the joint configuration first' ||
    result.reason === 'not in a joint configuration'
  );
}

function takeReady(outcome: Outcome, ready: Ready): void {
  outcome.softState = ready.softState ?? outcome.softState;
  outcome.hardState = ready.hardState ?? outcome.hardState;
  outcome.snapshot = ready.snapshot ?? outcome.snapshot;
  outcome.mustSync ||= ready.mustSync;
  outcome.reads.push(...ready.readStates);
  outcome.entries.push(...ready.entries);
  outcome.committed.push(...ready.committedEntries);
}

/** With its core, which RawNode keeps to itself: only its whole state shows a difference when it begins. */
function newNode(config: RaftConfig): [RawNode, Raft] {
  let raft: Raft | null = null;
  const { becomeFollower } = Raft.prototype;
  Raft.prototype.becomeFollower = function (this: Raft, term: number, lead: NodeId): void {
    raft = this;
    becomeFollower.call(this, term, lead);
  };
  try {
    const node = new RawNode(config);
    assert(raft !== null, 'a start begins as follower');
    return [node, raft];
  } finally {
    Raft.prototype.becomeFollower = becomeFollower;
  }
}

function configText(config: MemberConfig): string {
  const number = (value: number | boolean): string =>
    value === Number.POSITIVE_INFINITY ? 'inf' : String(Number(value));
  const values: Record<string, number | boolean> = {
    el: config.electionTick,
    hb: config.heartbeatTick,
    size: config.maxSizePerMessage,
    committed: config.maxCommittedSizePerReady,
    uncommitted: config.maxUncommittedEntriesSize,
    inflight: config.maxInflightMessages,
    bytes: config.maxInflightBytes,
    cq: config.checkQuorum,
    pv: config.preVote,
    lease: config.readOnlyOption === ReadOnlyOption.leaseBased,
    noforward: config.disableProposalForwarding,
  };
  return Object.entries(values)
    .map(([key, value]) => `${key}=${number(value)}`)
    .join(' ');
}
