// The watchers of a simulated cluster: each has a stream on some member, which breaks with the member or by itself, and goes on at
// another member behind what it has. Its stream is blocked at times, as by a client that does not read. What it gets is held
// against the true history by watch-checker.ts.

import type { Random } from '../io/random.ts';
import { batchHeadBytes, type EventBatch } from '../mvcc/event-batch.ts';
import { EventFilter, Watcher, type WatchSink } from '../mvcc/watcher.ts';
import { decode } from '../proto/message.ts';
import { Event } from '../proto/mvccpb.ts';
import type { Member } from '../server/member.ts';
import type { ClientWorld } from './sim-clients.ts';
import type { SimMember } from './sim-member.ts';
import { WatchChecker, type WatchedEvent, type WatchRange } from './watch-checker.ts';

const EventList = { events: { no: 11, kind: Event as typeof Event, repeated: true } } as const;

export class SimWatcher {
  readonly checker: WatchChecker;
  readonly name: string;
  private readonly world: ClientWorld;
  private readonly random: Random;
  private stream: Stream | null = null;
  private isEnding = false;
  streams = 0;

  constructor(world: ClientWorld, name: string, range: WatchRange) {
    this.world = world;
    this.name = name;
    this.random = world.random;
    this.checker = new WatchChecker(world.oracle.history, name, range, 2);
  }

  start(): void {
    this.world.after(this.random.below(300), () => this.open());
  }

  private open(): void {
    const serving = this.world.members.filter((sim) => sim.isServing);
    const sim = serving[this.random.below(Math.max(1, serving.length))];
    if (sim === undefined) {
      this.start();
      return;
    }
    this.streams++;
    // A member that is paused may die before it hears of it.
    const forget = sim.onDeath(() => this.start());
    sim.enter(() => {
      if (sim.member === null) return;
      forget();
      const stream = new Stream(this, sim, sim.member);
      this.stream = stream;
      stream.open();
      this.disturb(stream);
    });
  }

  /** Now and then it does not read, asks for progress, or breaks off. */
  private disturb(stream: Stream): void {
    this.world.after(this.random.below(1500), () => {
      if (this.stream !== stream || this.isEnding) return;
      const what = this.random.below(8);
      if (what === 0) stream.close();
      else if (what < 4) stream.setBlocked(!stream.isBlocked);
      else stream.askProgress();
      if (this.stream === stream) this.disturb(stream);
    });
  }

  closed(stream: Stream): void {
    if (this.stream !== stream) return;
    this.stream = null;
    this.start();
  }

  /** For the end: it reads all that there is. */
  readOn(): void {
    this.isEnding = true;
    if (this.stream?.isBlocked === true) this.stream.setBlocked(false);
  }
}

/** One stream with one watcher, on one life of a member. */
class Stream implements WatchSink {
  isBlocked = false;
  private readonly owner: SimWatcher;
  private readonly sim: SimMember;
  private readonly member: Member;
  private readonly watcher: Watcher;
  private readonly forget: () => void;
  private isOpen = true;

  constructor(owner: SimWatcher, sim: SimMember, member: Member) {
    this.owner = owner;
    this.sim = sim;
    this.member = member;
    const { key, end } = owner.checker.range;
    this.watcher = new Watcher(this, {
      id: 0,
      key,
      end: end === '\0' ? null : end,
      startRevision: owner.checker.resumeRevision,
      filter: EventFilter.none,
    });
    this.forget = sim.onDeath(() => this.ended());
  }

  open(): void {
    this.member.parts.hub.add(this.watcher);
    this.member.wake();
  }

  setBlocked(isBlocked: boolean): void {
    this.sim.enter(() => {
      if (!this.isOpen) return;
      this.isBlocked = isBlocked;
      if (isBlocked) return;
      this.member.parts.hub.resume(this);
      this.member.wake();
    });
  }

  /** As rpc/watch.ts answers: only who has everything is told. */
  askProgress(): void {
    this.sim.enter(() => {
      const { hub, store } = this.member.parts;
      if (!this.isOpen || this.isBlocked) return;
      hub.flush();
      if (this.isOpen && hub.isSynced(this.watcher)) this.owner.checker.progress(store.currentRevision);
    });
  }

  close(): void {
    this.sim.enter(() => {
      if (!this.isOpen) return;
      this.member.parts.hub.remove(this.watcher);
      this.ended();
    });
  }

  private ended(): void {
    this.isOpen = false;
    this.forget();
    this.owner.closed(this);
  }

  sendEvents(_watcher: Watcher, { revision, body }: EventBatch): void {
    const { events } = decode(EventList, body.bytes, batchHeadBytes, body.length)!;
    this.owner.checker.events(revision, events.map(eventOf));
  }

  sendCompacted(_watcher: Watcher, compactRevision: number): void {
    this.owner.checker.compacted(compactRevision);
    this.ended();
  }
}

type EventMessage = NonNullable<ReturnType<typeof decode<typeof Event>>>;

function eventOf(event: EventMessage): WatchedEvent {
  const { key, value, createRevision, modRevision, version } = event.kv!;
  const isDelete = event.type === 1;
  return {
    isDelete,
    key: key.toString('latin1'),
    value: isDelete ? '' : value.toString('latin1'),
    createRevision,
    version,
    revision: modRevision,
  };
}
