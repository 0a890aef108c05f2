// Several raft members in memory, driven by the commands of the scripts in testdata/ (run by script.test.ts). Not a
// driver to copy: everything is synchronous and printed. Members that crash lose what was not persisted and replay from
// there.
//
// Commands (ids in decimal, lists as 1,2,3):
//   add-nodes N [voters=..] [learners=..] [prevote] [checkquorum] [lease] [noforward] [async] [inflight=n]
//             [inflight-bytes=n] [max-size=n] [max-committed=n] [uncommitted=n]    N more members
//   bootstrap N                        members 1..N that bootstrap themselves as etcd does, with an empty storage
//   campaign ID · tick ID N · election-timeout ID N · propose ID words.. · batch ID words.. · conf-change ID [v1] ops..
//   transfer ID TO · forget-leader ID · step-down ID · read ID context
//   unreachable ID PEER · snapshot-status ID PEER ok|failed
//   ready ID                           takes and, unless async, performs one Ready
//   persist ID · apply ID              async members: completes the oldest write, applies the oldest committed entries
//   deliver ID.. [type=..] [from=ID] [drop]   delivers what waits for these members; `drop` loses it
//   stabilize [ID..] [quiet]           Readies, writes, applies and deliveries until nothing happens
//   partition 1,2 3 · heal             messages between the groups are lost when they would be delivered
//   compact ID INDEX · crash ID · restart ID · log-level none|info|debug
//   status ID.. · log ID · state ID · invariants
//
// A configuration change is written as in etcd's tests: v4 (voter) l5 (learner) r2 (remove) u1 (update), with
// implicit|explicit for the transition; no operation leaves a joint configuration.

import { assert } from '../base/assert.ts';
import { type RaftConfig, type RaftLogger, ReadOnlyOption } from './config.ts';
import { describeEntry, describeMessage, describeReady, describeStatus, hex, progressText } from './describe.ts';
import { parseConfChange, Words } from './interaction-words.ts';
import { MemoryStorage } from './memory-storage.ts';
import { ProposeStatus } from './propose.ts';
import { RawNode, type Ready } from './raw-node.ts';
import { type ConfState, EMPTY_CONF_STATE, type Entry, EntryType, type Message, MessageType } from './types.ts';

/** The state machine of a member: the requests that it applied, in order. */
interface MemberState {
  applied: number;
  confState: ConfState;
  history: string[];
}

interface Member {
  readonly config: RaftConfig;
  readonly storage: MemoryStorage;
  readonly isAsync: boolean;
  node: RawNode;
  state: MemberState;
  isDown: boolean;
  writes: Ready[];
  applies: Ready[];
}

export class Interaction {
  readonly #members = new Map<bigint, Member>();
  #network: Message[] = [];
  #groups: Set<bigint>[] = [];
  #output: string[] = [];
  #indent = '';
  #logLevel = 'info';
  readonly #logger: RaftLogger;

  constructor() {
    const level = (): string => this.#logLevel;
    this.#logger = {
      get debugEnabled(): boolean {
        return level() === 'debug';
      },
      debug: (line) => this.#print(`DEBUG ${line}`),
      info: (line) => {
        if (this.#logLevel !== 'none') this.#print(`INFO ${line}`);
      },
      warn: (line) => {
        if (this.#logLevel !== 'none') this.#print(`WARN ${line}`);
      },
    };
  }

  /** Runs one command and returns what it printed. */
  run(line: string): string {
    this.#output = [];
    const space = line.indexOf(' ');
    const name = space < 0 ? line : line.slice(0, space);
    const words = new Words(space < 0 ? '' : line.slice(space + 1));
    this.#dispatch(name, words);
    for (const member of this.#members.values()) if (!member.isDown) member.node.checkInvariants();
    return this.#output.length === 0 ? 'ok' : this.#output.join('\n');
  }

  #print(text: string): void {
    this.#output.push(this.#indent + text);
  }

  #member(word: string | undefined): Member {
    const member = this.#members.get(BigInt(word ?? '0'));
    assert(member !== undefined, 'no such member');
    return member;
  }

  #dispatch(name: string, words: Words): void {
    const [first, second] = words.plain;
    switch (name) {
      case 'add-nodes':
        this.#addNodes(words);
        break;
      case 'bootstrap':
        this.#bootstrap(words);
        break;
      case 'ready':
        this.#ready(this.#member(first));
        break;
      case 'persist':
        this.#persist(this.#member(first));
        break;
      case 'apply':
        this.#apply(this.#member(first));
        break;
      case 'deliver':
        this.#deliverCommand(words);
        break;
      case 'stabilize':
        this.#stabilize(words);
        break;
      case 'partition':
        this.#groups = words.plain.map((group) => new Set(group.split(',').map(BigInt)));
        break;
      case 'heal':
        this.#groups = [];
        break;
      case 'crash':
        this.#crash(this.#member(first));
        break;
      case 'restart':
        this.#restart(this.#member(first));
        break;
      case 'compact':
        this.#compact(this.#member(first), Number(second));
        break;
      case 'log-level':
        this.#logLevel = first ?? 'info';
        break;
      case 'invariants':
        break;
      case 'status':
        for (const word of words.plain) this.#status(this.#member(word));
        break;
      case 'log':
        this.#log(this.#member(first));
        break;
      case 'state':
        this.#state(this.#member(first));
        break;
      default:
        this.#input(name, this.#member(first).node, words.plain.slice(1));
    }
  }

  /** Commands that are one call of a node. */
  #input(name: string, node: RawNode, rest: readonly string[]): void {
    switch (name) {
      case 'campaign':
        node.campaign();
        break;
      case 'tick':
        for (let i = 0; i < Number(rest[0]); i++) node.tick();
        break;
      case 'election-timeout':
        node.setElectionTimeout(Number(rest[0]));
        break;
      case 'propose':
        for (const word of rest) this.#printProposal(node.propose(Buffer.from(word)));
        break;
      case 'batch':
        this.#printProposal(node.proposeBatch(rest.map((word) => Buffer.from(word))));
        break;
      case 'conf-change': {
        const type = rest[0] === 'v1' ? EntryType.confChange : EntryType.confChangeV2;
        const text = (rest[0] === 'v1' ? rest.slice(1) : rest).join(' ');
        this.#printProposal(node.proposeConfChange(type, Buffer.from(text)));
        break;
      }
      case 'transfer':
        node.transferLeader(BigInt(rest[0]!));
        break;
      case 'forget-leader':
        node.forgetLeader();
        break;
      case 'step-down':
        node.stepDown();
        break;
      case 'read':
        if (!node.readIndex(Buffer.from(rest[0]!))) this.#print('nobody to ask');
        break;
      case 'unreachable':
        node.reportUnreachable(BigInt(rest[0]!));
        break;
      case 'snapshot-status':
        node.reportSnapshot(BigInt(rest[0]!), rest[1] === 'ok');
        break;
      default:
        throw new Error(`unknown command ${name}`);
    }
  }

  #printProposal(result: ReturnType<RawNode['propose']>): void {
    if (result.status === ProposeStatus.accepted) this.#print(`accepted ${result.term}/${result.index}`);
    else this.#print(result.status === ProposeStatus.forwarded ? 'forwarded' : `dropped: ${result.reason}`);
  }

  // --- Members ---

  #addNodes(words: Words): void {
    const confState: ConfState = {
      ...EMPTY_CONF_STATE,
      voters: words.ids('voters'),
      learners: words.ids('learners'),
    };
    const count = Number(words.plain[0]);
    for (let i = 0; i < count; i++) this.#add(words, new MemoryStorage(confState), confState);
  }

  #bootstrap(words: Words): void {
    const count = Number(words.plain[0]);
    const peers = Array.from({ length: count }, (_, i) => ({ id: BigInt(i + 1), data: Buffer.from(`v${i + 1}`) }));
    for (let i = 0; i < count; i++) this.#add(words, new MemoryStorage(), EMPTY_CONF_STATE).node.bootstrap(peers);
  }

  #add(words: Words, storage: MemoryStorage, confState: ConfState): Member {
    const has = (name: string): boolean => words.plain.includes(name);
    const id = BigInt(this.#members.size + 1);
    const config: RaftConfig = {
      id,
      electionTick: 3,
      heartbeatTick: 1,
      storage,
      applied: 0,
      maxSizePerMessage: words.count('max-size', Number.POSITIVE_INFINITY),
      maxCommittedSizePerReady: words.count('max-committed', Number.POSITIVE_INFINITY),
      maxUncommittedEntriesSize: words.count('uncommitted', Number.POSITIVE_INFINITY),
      maxInflightMessages: words.count('inflight', 512),
      maxInflightBytes: words.count('inflight-bytes', Number.POSITIVE_INFINITY),
      checkQuorum: has('checkquorum'),
      preVote: has('prevote'),
      readOnlyOption: has('lease') ? ReadOnlyOption.leaseBased : ReadOnlyOption.safe,
      // Deterministic: the lower id campaigns first.
      random: (n) => Number(id - 1n) % n,
      logger: this.#logger,
      disableProposalForwarding: has('noforward'),
      decodeConfChange: (entry) => parseConfChange(entry.data.toString()),
    };
    const member: Member = {
      config,
      storage,
      isAsync: has('async'),
      node: new RawNode(config),
      state: { applied: 0, confState, history: [] },
      isDown: false,
      writes: [],
      applies: [],
    };
    this.#members.set(id, member);
    return member;
  }

  #crash(member: Member): void {
    member.isDown = true;
    member.writes = [];
    member.applies = [];
    this.#network = this.#network.filter((message) => message.to !== member.config.id);
  }

  /** From the durable log and the last snapshot; the state machine is replayed. */
  #restart(member: Member): void {
    const snapshot = member.storage.snapshot()!;
    member.isDown = false;
    member.state = {
      applied: snapshot.meta.index,
      confState: snapshot.meta.confState,
      history: parseHistory(snapshot.data),
    };
    member.node = new RawNode({ ...member.config, applied: snapshot.meta.index });
  }

  #compact(member: Member, index: number): void {
    const { applied, confState, history } = member.state;
    member.storage.createSnapshot(applied, confState, Buffer.from(JSON.stringify(history)));
    member.storage.compact(index);
    this.#print(`${member.config.id} has a snapshot at ${applied} and the log from ${member.storage.firstIndex()}`);
  }

  // --- The driver's loop ---

  #ready(member: Member): void {
    const ready = member.node.ready();
    for (const line of describeReady(ready)) this.#print(line);
    this.#network.push(...ready.messages);
    if (ready.sequence > 0) member.writes.push(ready);
    if (ready.committedEntries.length > 0 || ready.snapshot !== null) member.applies.push(ready);
    if (member.isAsync) return;
    while (member.writes.length > 0) this.#persist(member);
    while (member.applies.length > 0) this.#apply(member);
  }

  #persist(member: Member): void {
    const ready = member.writes.shift();
    assert(ready !== undefined, 'nothing to persist');
    if (ready.snapshot !== null) member.storage.applySnapshot(ready.snapshot);
    member.storage.append(ready.entries);
    if (ready.hardState !== null) member.storage.setHardState(ready.hardState);
    member.node.persisted(ready.sequence);
    this.#network.push(...ready.messagesAfterPersist);
    if (member.isAsync) {
      this.#print(`persisted ${ready.sequence}`);
      for (const message of ready.messagesAfterPersist) this.#print(`  send ${describeMessage(message)}`);
    }
  }

  #apply(member: Member): void {
    const ready = member.applies.shift();
    assert(ready !== undefined, 'nothing to apply');
    const { state, node } = member;
    if (ready.snapshot !== null) {
      state.applied = ready.snapshot.meta.index;
      state.confState = ready.snapshot.meta.confState;
      state.history = parseHistory(ready.snapshot.data);
      node.applied(state.applied);
    }
    for (const entry of ready.committedEntries) {
      assert(entry.index === state.applied + 1, 'entries must be applied in order');
      state.applied = entry.index;
      if (entry.type === EntryType.normal) {
        if (entry.data.length > 0) state.history.push(entry.data.toString());
        continue;
      }
      const change = parseConfChange(entry.data.toString());
      assert(change !== null, 'a malformed change was committed');
      state.confState = node.applyConfChange(change);
    }
    if (ready.committedEntries.length > 0) node.applied(state.applied);
    if (member.isAsync) this.#print(`applied ${state.applied}`);
  }

  #deliverCommand(words: Words): void {
    const drop = words.flag('drop');
    const type = words.option('type');
    const from = words.option('from');
    for (const word of words.plain) {
      const isTaken = (message: Message): boolean =>
        message.to === BigInt(word) &&
        (type === undefined || message.type === messageTypeOf(type)) &&
        (from === undefined || message.from === BigInt(from));
      if (drop) this.#drop(isTaken);
      else this.#deliver(this.#member(word), isTaken);
    }
  }

  #drop(isTaken: (message: Message) => boolean): void {
    for (const message of this.#network.filter(isTaken)) this.#print(`lost ${describeMessage(message)}`);
    this.#network = this.#network.filter((message) => !isTaken(message));
  }

  #deliver(member: Member, isTaken: (message: Message) => boolean): void {
    const messages = this.#network.filter(isTaken);
    this.#network = this.#network.filter((message) => !isTaken(message));
    for (const message of messages) {
      if (member.isDown || this.#isCut(message)) {
        this.#print(`lost ${describeMessage(message)}`);
        continue;
      }
      this.#print(describeMessage(message));
      member.node.step(message);
    }
  }

  #isCut(message: Message): boolean {
    if (this.#groups.length === 0) return false;
    return !this.#groups.some((group) => group.has(message.from) && group.has(message.to));
  }

  #stabilize(words: Words): void {
    const before = this.#logLevel;
    const start = this.#output.length;
    const quiet = words.flag('quiet');
    if (quiet) this.#logLevel = 'none';
    const members =
      words.plain.length > 0 ? words.plain.map((word) => this.#member(word)) : [...this.#members.values()];
    for (let round = 0; this.#stabilizeOnce(members); round++) assert(round < 200, 'it never becomes stable');
    if (quiet) this.#output.length = start;
    this.#logLevel = before;
  }

  /** False when nothing happened. */
  #stabilizeOnce(members: readonly Member[]): boolean {
    let happened = false;
    const section = (title: string, work: () => void): void => {
      happened = true;
      this.#print(title);
      this.#indent = '  ';
      work();
      this.#indent = '';
    };
    for (const member of members) {
      const { id } = member.config;
      if (!member.isDown && member.node.hasReady()) section(`> ${id} has work`, () => this.#ready(member));
    }
    for (const member of members) {
      const { id } = member.config;
      if (member.writes.length > 0) section(`> ${id} writes`, () => this.#persist(member));
      if (member.applies.length > 0) section(`> ${id} applies`, () => this.#apply(member));
    }
    for (const member of members) {
      const { id } = member.config;
      const isTaken = (message: Message): boolean => message.to === id;
      if (this.#network.some(isTaken)) section(`> ${id} receives`, () => this.#deliver(member, isTaken));
    }
    for (const member of members) if (!member.isDown) member.node.checkInvariants();
    return happened;
  }

  // --- Views ---

  #status(member: Member): void {
    const status = member.node.status();
    const { stableIndex } = member.node;
    const stable = stableIndex === status.lastIndex ? '' : ` stable=${stableIndex}`;
    this.#print(`${member.config.id} ${describeStatus(status)}${stable}`);
    for (const progress of status.progress) this.#print(`  ${hex(progress.id)}: ${progressText(progress)}`);
  }

  #log(member: Member): void {
    const { storage } = member;
    this.#print(`first=${storage.firstIndex()} last=${storage.lastIndex()}`);
    if (storage.lastIndex() < storage.firstIndex()) return;
    const entries: Entry[] = storage.entries(storage.firstIndex(), storage.lastIndex() + 1, Number.POSITIVE_INFINITY)!;
    for (const entry of entries) this.#print(describeEntry(entry));
  }

  #state(member: Member): void {
    this.#print(`applied=${member.state.applied} [${member.state.history.join(' ')}]`);
  }
}

function parseHistory(data: Buffer): string[] {
  if (data.length === 0) return [];
  const history: unknown = JSON.parse(data.toString());
  assert(Array.isArray(history), 'the history must be a list');
  return history.map(String);
}

function messageTypeOf(name: string): MessageType {
  const type = (MessageType as Readonly<Record<string, MessageType>>)[name];
  assert(type !== undefined, 'no such message type');
  return type;
}
