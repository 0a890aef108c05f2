// Known mistakes, each planted into the simulated cluster alone, to prove that its checkers find them: the member's parts are wrapped or
// overridden once they are built, nothing in the product knows of it. For each: where it bites best, and what must be found.

import { WatchHub } from '../mvcc/watch-hub.ts';
import type { Watcher } from '../mvcc/watcher.ts';
import { RaftLog } from '../raft/log.ts';
import { type Message, MessageType } from '../raft/types.ts';
import type { BootstrapOptions } from '../server/bootstrap.ts';
import type { Member } from '../server/member.ts';
import { SegmentReader, TailKind } from '../wal/segment-reader.ts';
import type { Wal } from '../wal/wal.ts';
import type { SimHooks, SimMember } from './sim-member.ts';
import { type SimOptions, withRot } from './sim-options.ts';

export interface PlantedBug {
  readonly name: string;
  readonly hooks: SimHooks;
  /** For what is part of a class and not of a member: patches it, and answers how to undo that. */
  readonly patch?: () => () => void;
  /** Options that bring the fault about more often than the average seed does. */
  readonly change: (options: SimOptions) => SimOptions;
  /** What the simulation says of it. */
  readonly found: RegExp;
}

type Changes = {
  readonly [N in keyof SimOptions]?: SimOptions[N] extends object ? Partial<SimOptions[N]> : SimOptions[N];
};

function with_(changes: Changes): (options: SimOptions) => SimOptions {
  return (options) => ({
    ...options,
    ...changes,
    link: { ...options.link, ...changes.link },
    faults: { ...options.faults, ...changes.faults },
    client: { ...options.client, ...changes.client },
  });
}

const busy: Changes = {
  memberCount: 3,
  clientCount: 5,
  client: { thinkMs: 20, keyCount: 3 },
  faults: { damage: Infinity },
};
const crashing: Changes = { ...busy, faults: { power: 1500, kill: 4000, cut: 5000, damage: Infinity } };

/** Puts `body` in the place of a method of one object. */
function override<T extends object, N extends keyof T>(target: T, name: N, body: T[N]): void {
  Object.defineProperty(target, name, { value: body, configurable: true, writable: true });
}

const opened = (change: (member: Member, sim: SimMember) => void): SimHooks => ({ opened: change });

function changeMessages(member: Member, change: (message: Message) => Message): void {
  const { transport } = member.parts;
  const send = transport.send.bind(transport);
  override(transport, 'send', (messages) => send(messages.map(change)));
}

/** The method of all objects of a class, until it is undone. */
function patchMethod<T extends object, N extends keyof T>(
  prototype: T,
  name: N,
  make: (original: T[N]) => T[N],
): () => void {
  const original = prototype[name];
  override(prototype, name, make(original));
  return () => override(prototype, name, original);
}

const voteNotPersisted: PlantedBug = {
  name: 'a vote is answered without being written',
  hooks: opened((member, sim) => {
    const { wal } = member.parts;
    const append: Wal['append'] = wal.append.bind(wal);
    override(wal, 'append', (hardState, entries, marker) =>
      append(hardState === null ? null : { ...hardState, vote: 0n }, entries, marker),
    );
    const { world, generation } = sim;
    changeMessages(member, (message) => {
      const isVote = message.type === MessageType.voteResp && !message.reject;
      if (isVote && world.network.faults.loss > 0 && world.random.below(2) === 0) {
        world.loop.after(0.1, () => {
          if (sim.generation === generation) sim.die('kill', 'behind its vote');
        });
      }
      return message;
    });
  }),
  // Two candidates have to ask one voter in one term, which restarts between: slow links, voters that die behind their vote, fast
  // restarts, no pre-vote.
  change: with_({
    ...busy,
    preVote: false,
    durationMs: 20_000,
    heartbeatMs: 20,
    link: { delayMs: 25, loss: 0.001, overtake: 0 },
    faults: {
      damage: Infinity,
      kill: 500,
      restart: 30,
      power: Infinity,
      cut: Infinity,
      pause: Infinity,
      operator: Infinity,
      fullDisk: Infinity,
    },
  }),
  found: /two leaders|committed twice|without the committed|is lost|not linearizable/,
};

const everyVoteGranted: PlantedBug = {
  name: 'every vote is granted',
  hooks: opened((member) =>
    changeMessages(member, (message) =>
      message.type === MessageType.voteResp ? { ...message, reject: false } : message,
    ),
  ),
  change: with_({ ...crashing, preVote: false }),
  found: /two leaders|committed twice|without the committed/,
};

function withoutOwnEntries(message: Message): Message {
  const { entries, term } = message;
  return message.type === MessageType.app ? { ...message, entries: entries.filter((one) => one.term < term) } : message;
}

const oldTermCommitted: PlantedBug = {
  name: 'an entry of an old term is committed by counting',
  // What a leader adds itself gets nowhere for a while, what it has from before does: so figure 8 of the Raft paper comes about.
  // The leader tends to end right behind such a commit.
  hooks: opened(({ parts }, sim) => {
    const { world } = sim;
    const { transport, raft } = parts;
    const send = transport.send.bind(transport);
    let leadsTerm = 0;
    let sinceMs = 0;
    let committed = 0;
    override(transport, 'send', (messages) => {
      const { isLeader, term, committedIndex } = raft;
      if (isLeader && term !== leadsTerm) {
        leadsTerm = term;
        sinceMs = world.loop.nowMs;
        committed = committedIndex;
      }
      const isHeldBack = world.network.faults.loss > 0 && world.loop.nowMs < sinceMs + 400;
      send(isHeldBack ? messages.map(withoutOwnEntries) : messages);
      if (!isHeldBack || !isLeader || committedIndex === committed || world.random.below(2) > 0) return;
      const { generation } = sim;
      world.loop.after(0.1, () => {
        if (sim.generation === generation) sim.die('kill', 'behind a commit');
      });
    });
  }),
  patch: () => {
    const undo = patchMethod(
      RaftLog.prototype,
      'maybeCommit',
      () =>
        function (this: RaftLog, index) {
          if (index <= this.committed) return false;
          this.commitTo(index);
          return true;
        },
    );
    // An entry a message, so that the old one is acknowledged before the first of the new term, as large ones are.
    const undoSize = patchMethod(
      RaftLog.prototype,
      'entriesFrom',
      (original) =>
        function (this: RaftLog, lo) {
          return original.call(this, lo, 1);
        },
    );
    return () => {
      undo();
      undoSize();
    };
  },
  // Many leaders, most of which end before their own entries get anywhere.
  change: with_({
    ...busy,
    preVote: false,
    durationMs: 40_000,
    heartbeatMs: 20,
    link: { delayMs: 1, loss: 0.001, overtake: 0 },
    faults: {
      damage: Infinity,
      kill: 300,
      restart: 1000,
      power: Infinity,
      pause: Infinity,
      cut: Infinity,
      clog: Infinity,
      transfer: Infinity,
      operator: Infinity,
      fullDisk: Infinity,
    },
  }),
  found: /committed twice|without the committed|is lost|overwritten|not linearizable/,
};

const readWithoutQuorum: PlantedBug = {
  name: 'a leader reads without asking the others',
  hooks: opened((member) => {
    Object.defineProperty(member, 'canReadNow', { get: () => member.parts.raft.isLeader });
  }),
  change: with_({ ...busy, faults: { cut: 2000, pause: 3000, damage: Infinity } }),
  found: /not linearizable|is answered revision/,
};

const followerReadsAtOnce: PlantedBug = {
  name: 'a follower answers reads from what it has',
  hooks: opened((member) => override(member, 'read', (waiter) => waiter.ready())),
  change: with_({ ...busy, link: { delayMs: 20 } }),
  found: /not linearizable|is answered revision/,
};

const consistentIndexNotStored: PlantedBug = {
  name: 'rows are flushed without the consistent index',
  hooks: {
    bootstrap: (options: BootstrapOptions, sim: SimMember) => {
      const { tables } = sim;
      const openWriter = tables.openWriter.bind(tables);
      override(tables, 'openWriter', () => {
        const environment = openWriter();
        const meta = environment.table('meta');
        const put = meta.put.bind(meta);
        let count = 0;
        override(meta, 'put', (key, value) => {
          // Of the first commit only: the later ones keep its value.
          if (key.toString() === 'consistent_index' && count++ > 0) return;
          put(key, value);
        });
        return environment;
      });
      return options;
    },
  },
  change: with_(crashing),
  found: /is at revision|revision \d+ of|rows|consistent index/,
};

const watchGapOnRestart: PlantedBug = {
  name: 'a watch that resumes begins with what comes next',
  hooks: opened(({ parts }) => {
    const { hub, store } = parts;
    const add = hub.add.bind(hub);
    override(hub, 'add', (watcher: Watcher) => {
      if (watcher.startRevision <= store.currentRevision) {
        override(watcher, 'startRevision', store.currentRevision + 1);
      }
      add(watcher);
    });
  }),
  change: with_({ ...crashing, watcherCount: 4 }),
  found: /^watch w\d+: misses revision/,
};

const revisionsSplit: PlantedBug = {
  name: 'a watcher that catches up is given its last event again',
  hooks: {},
  patch: () =>
    patchMethod(
      WatchHub.prototype,
      'resume',
      (original) =>
        function (this: WatchHub, sink) {
          original.call(this, sink);
          for (const watcher of (this as unknown as { unsynced: Map<Watcher, number> }).unsynced.keys()) {
            if (watcher.sink === sink) watcher.minRevision = Math.max(2, watcher.minRevision - 1);
          }
        },
    ),
  change: with_({ ...busy, watcherCount: 4 }),
  found: /^watch w\d+: revision \d+ again/,
};

const leaseRevived: PlantedBug = {
  name: 'a lease that has expired is renewed',
  hooks: opened(({ parts }) => override(parts.lessor, 'renewalMustWait', () => false)),
  change: with_({
    ...busy,
    leaseHolderCount: 24,
    // A lease of which nobody has heard for just over its TTL: its revocation is on its way.
    leaseRenewal: 1.01,
    client: { thinkMs: 100 },
    faults: { pause: 700, stall: 700, damage: Infinity },
    syncMs: 10,
  }),
  found: /lease \d+ (ends \d+ ms after its last renewal|is renewed)/,
};

const leaseEndsEarly: PlantedBug = {
  name: 'a new leader does not extend the leases',
  hooks: opened(({ parts }) => {
    const { lessor } = parts;
    const promote = lessor.promote.bind(lessor);
    override(lessor, 'promote', () => promote(-2000));
  }),
  change: with_({ ...crashing, leaseHolderCount: 8, client: { thinkMs: 100 } }),
  found: /lease \d+ ends \d+ ms after its last renewal/,
};

const leaseNeverEnds: PlantedBug = {
  name: 'a new leader forgets the leases that it was not granted',
  hooks: opened(({ parts }) => override(parts.lessor, 'promote', () => {})),
  change: with_({ ...busy, leaseHolderCount: 6, client: { thinkMs: 100 } }),
  found: /lease \d+ was left|primary/,
};

const ackBeforeSync: PlantedBug = {
  name: 'the WAL says that it is durable before it is',
  hooks: {
    bootstrap: (options: BootstrapOptions) => ({
      ...options,
      walWriter: (config) => {
        const writer = options.walWriter(config);
        let given = 0;
        const write = writer.write.bind(writer);
        override(writer, 'write', (length, position, rotation) => {
          given = write(length, position, rotation);
          return given;
        });
        override(writer, 'wait', () => true);
        override(writer, 'completed', () => given);
        return writer;
      },
    }),
  },
  change: with_({ ...crashing, syncMs: 10 }),
  // Or it ends, again and again, when the leader tells it of a commit behind its log.
  found: /is lost|committed twice|without the committed|does not start|not linearizable|goes back|does not serve/,
};

const syncDropped: PlantedBug = {
  name: 'one sync in three is left out',
  hooks: {
    bootstrap: (options: BootstrapOptions, { disk, world }: SimMember) => {
      if (!Object.hasOwn(disk, 'fdatasync')) {
        const fdatasync = disk.fdatasync.bind(disk);
        override(disk, 'fdatasync', (fd: number) => {
          if (world.random.below(3) > 0) fdatasync(fd);
        });
      }
      return options;
    },
  },
  change: with_({ ...crashing, faults: { power: 700, kill: Infinity, damage: Infinity } }),
  found: /is lost|committed twice|without the committed|does not start|not linearizable|goes back/,
};

const followerAnswersEarly: PlantedBug = {
  name: 'a follower acknowledges entries before they are durable',
  hooks: opened(({ parts }) => {
    const { raft } = parts;
    const ready = raft.ready.bind(raft);
    override(raft, 'ready', () => {
      const given = ready();
      return { ...given, messages: [...given.messages, ...given.messagesAfterPersist], messagesAfterPersist: [] };
    });
  }),
  change: with_({ ...crashing, syncMs: 10, faults: { power: 500, kill: Infinity, cut: 1500, damage: Infinity } }),
  // Or it ends, again and again, when the leader tells it of a commit behind its log.
  found: /is lost|committed twice|without the committed|two leaders|not linearizable|does not serve/,
};

const entrySkipped: PlantedBug = {
  name: 'a member does not apply one entry in two hundred',
  hooks: opened(({ parts }, { world }) => {
    const { applier } = parts;
    const apply = applier.apply.bind(applier);
    override(applier, 'apply', (request, buffer, isAwaited) => {
      if (isAwaited || world.random.below(200) > 0) apply(request, buffer, isAwaited);
    });
  }),
  change: with_(busy),
  found: /is at revision|rows|revision \d+ of/,
};

const proposalRepeated: PlantedBug = {
  name: 'a forwarded proposal is sent twice',
  hooks: opened(({ parts }) => {
    const { transport } = parts;
    const send = transport.send.bind(transport);
    override(transport, 'send', (messages) =>
      send(messages.flatMap((message) => (message.type === MessageType.prop ? [message, message] : [message]))),
    );
  }),
  change: with_(busy),
  found: /acknowledged write .* is lost|not linearizable/,
};

const compactionSilent: PlantedBug = {
  name: 'a watch of compacted revisions goes on without a word',
  hooks: opened(({ parts }) => {
    const { store } = parts;
    const { hub } = parts;
    const add = hub.add.bind(hub);
    override(hub, 'add', (watcher: Watcher) => {
      add(watcher);
      if (watcher.minRevision < store.compactRevision) watcher.minRevision = store.compactRevision;
    });
  }),
  change: with_({ ...crashing, watcherCount: 4, client: { thinkMs: 20, keyCount: 3, compactions: 0.05 } }),
  found: /^watch w\d+: misses revision/,
};

const snapshotIndexWrong: PlantedBug = {
  name: 'a snapshot is sent as that of the entry behind its own',
  hooks: opened(({ parts }) => {
    const { transport } = parts;
    const sendSnapshot = transport.sendSnapshot.bind(transport);
    override(transport, 'sendSnapshot', (message, body) => {
      const { meta, data } = message.snapshot!;
      sendSnapshot({ ...message, snapshot: { meta: { ...meta, index: meta.index + 1 }, data } }, body);
    });
  }),
  change: with_({
    ...busy,
    catchUpEntries: 10,
    logSlack: 20,
    faults: { kill: 3000, restart: 5000, cut: 4000, damage: Infinity },
  }),
  found: /does not serve|not every member takes a write/,
};

const damageCut: PlantedBug = {
  name: 'damage in the middle of the WAL is cut off like a torn tail',
  hooks: {},
  patch: () =>
    patchMethod(
      SegmentReader.prototype,
      'tail',
      (original) =>
        function (this: SegmentReader) {
          const tail = original.call(this);
          return tail.kind === TailKind.damaged ? { ...tail, kind: TailKind.torn } : tail;
        },
    ),
  change: with_({ ...busy, faults: { damage: 2000 } }),
  found: /starts on damaged data|does not start|without the committed|committed twice|ends with exit code/,
};

const lastRecordCut: PlantedBug = {
  name: 'a last record with a flipped bit is cut off like a torn one',
  hooks: {},
  patch: () =>
    patchMethod(
      SegmentReader.prototype,
      'tail',
      (original) =>
        function (this: SegmentReader) {
          const tail = original.call(this);
          return tail.reason.includes('has flipped') ? { ...tail, kind: TailKind.torn } : tail;
        },
    ),
  change: with_({ ...busy, faults: { damage: 2000 } }),
  found: /starts on damaged data|ends with exit code 15|without the committed|committed twice/,
};

const rotNotLookedFor: PlantedBug = {
  name: 'members are not compared',
  hooks: opened(({ corruption }) => override(corruption, 'tick', () => {})),
  change: (options) => withRot(with_(busy)(options)),
  found: /rot of m\d+ is not found/,
};

export const plantedBugs: readonly PlantedBug[] = [
  voteNotPersisted,
  everyVoteGranted,
  oldTermCommitted,
  readWithoutQuorum,
  followerReadsAtOnce,
  consistentIndexNotStored,
  watchGapOnRestart,
  revisionsSplit,
  leaseRevived,
  leaseEndsEarly,
  leaseNeverEnds,
  ackBeforeSync,
  syncDropped,
  followerAnswersEarly,
  entrySkipped,
  proposalRepeated,
  compactionSilent,
  snapshotIndexWrong,
  damageCut,
  lastRecordCut,
  rotNotLookedFor,
];
