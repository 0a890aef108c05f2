// The network between simulated members: the PeerTransport and the PeerRequests of each, over links that delay, lose, repeat, reorder
// and stop. A link is one direction between two members, so cuts may be one-sided. A message is a copy, encoded and decoded as on
// the wire: members share nothing. What a fault is and how long it lasts is the simulation's to say (sim-faults.ts).
//
//   send() ── flush() ──▶ link: up? lost? ── delay, behind the one before unless it overtakes ──▶ events.message()
//   sendSnapshot() ──▶ MsgSnap and the database in chunks, each with its delay; broken off when the link goes or at random
//
// As over TCP a sender learns of a loss at times (`unreachable`), never for certain.

import { assert } from '../base/assert.ts';
import type { Random } from '../io/random.ts';
import type {
  PeerAnswer,
  PeerEvents,
  PeerRequest,
  PeerRequests,
  PeerTransport,
  SnapshotBody,
  SnapshotReceipt,
} from '../peer/peer-transport.ts';
import { decodeMessage, encodedMessageBytes, writeMessage } from '../peer/raft-message.ts';
import { type Message, MessageType, type NodeId } from '../raft/types.ts';
import type { SimLoop } from './sim-loop.ts';

export interface LinkFaults {
  /** No message takes less: the length of the way. */
  leastMs: number;
  /** Mean of the exponential delay beyond it. */
  delayMs: number;
  loss: number;
  repeat: number;
  /** Chance that a message gets lost on the way and TCP sends it again: it comes late, and all behind it as well. */
  resend: number;
  /** Chance that a message does not wait for the one before it. */
  overtake: number;
  /** Chance that a transfer of a snapshot breaks off, each chunk. */
  cutOff: number;
}

export const calmLink: LinkFaults = {
  leastMs: 0.05,
  delayMs: 0.5,
  loss: 0,
  resend: 0,
  repeat: 0,
  overtake: 0,
  cutOff: 0,
};

interface Link {
  isUp: boolean;
  /** Nothing arrives before. */
  clogUntilMs: number;
  /** Of the last message: the next one comes after it. */
  lastArrivalMs: number;
  upSinceMs: number;
}

/** What a member offers to the network while it runs. */
export interface Station {
  readonly id: NodeId;
  /** How others find it. */
  readonly url: string;
  readonly events: PeerEvents;
  /** Runs as the member: later when it is paused, never when it has died. */
  enter(run: () => void): void;
  readonly isAlive: () => boolean;
  nowMs(): number;
  answer(request: PeerRequest, done: (answer: PeerAnswer) => void): void;
  /** Told of who has dialled it; its transport's. */
  met: (id: NodeId, url: string) => void;
}

export interface NetworkCounts {
  messages: number;
  lost: number;
  repeated: number;
  overtaken: number;
  snapshots: number;
  snapshotsCut: number;
  requests: number;
}

export class SimNetwork {
  readonly loop: SimLoop;
  readonly random: Random;
  faults: LinkFaults = { ...calmLink };
  readonly counts: NetworkCounts = {
    messages: 0,
    lost: 0,
    repeated: 0,
    overtaken: 0,
    snapshots: 0,
    snapshotsCut: 0,
    requests: 0,
  };
  /** Sees every message that is handed to a link. */
  onMessage: (message: Message) => void = () => {};
  private readonly stations = new Map<NodeId, Station>();
  private readonly links = new Map<NodeId, Map<NodeId, Link>>();

  constructor(loop: SimLoop, random: Random) {
    this.loop = loop;
    this.random = random;
  }

  /** A member begins to listen; the one of its earlier life is forgotten. */
  join(station: Station): void {
    this.stations.set(station.id, station);
    for (const [from, links] of this.links) {
      for (const [to, link] of links) if (from === station.id || to === station.id) link.upSinceMs = this.loop.nowMs;
    }
  }

  station(id: NodeId): Station | undefined {
    const station = this.stations.get(id);
    return station?.isAlive() ? station : undefined;
  }

  stationAt(url: string): Station | undefined {
    for (const station of this.stations.values()) if (station.url === url && station.isAlive()) return station;
    return undefined;
  }

  link(from: NodeId, to: NodeId): Link {
    let links = this.links.get(from);
    if (links === undefined) {
      links = new Map();
      this.links.set(from, links);
    }
    let link = links.get(to);
    if (link === undefined) {
      link = { isUp: true, clogUntilMs: 0, lastArrivalMs: 0, upSinceMs: this.loop.nowMs };
      links.set(to, link);
    }
    return link;
  }

  cut(from: NodeId, to: NodeId): void {
    this.link(from, to).isUp = false;
  }

  mend(from: NodeId, to: NodeId): void {
    const link = this.link(from, to);
    if (link.isUp) return;
    link.isUp = true;
    link.upSinceMs = this.loop.nowMs;
  }

  clog(from: NodeId, to: NodeId, forMs: number): void {
    this.link(from, to).clogUntilMs = this.loop.nowMs + forMs;
  }

  /** No cut, no clog, no loss. */
  heal(): void {
    this.faults = { ...calmLink };
    for (const links of this.links.values()) {
      for (const link of links.values()) {
        if (!link.isUp) link.upSinceMs = this.loop.nowMs;
        link.isUp = true;
        link.clogUntilMs = 0;
      }
    }
  }

  chance(probability: number): boolean {
    return probability > 0 && this.random.float() < probability;
  }

  private delayMs(): number {
    return this.faults.leastMs - this.faults.delayMs * Math.log(1 - this.random.float());
  }

  /** As Linux does it: a round trip and 200 ms until the first time that it is sent again, then twice as long, and so on. */
  private resendMs(): number {
    const { resend, leastMs } = this.faults;
    let totalMs = 0;
    for (let waitMs = 2 * leastMs + 200; this.chance(resend); waitMs *= 2) totalMs += waitMs;
    return totalMs;
  }

  /** When something that goes onto the link now is there; Infinity: never. */
  arrivalMs(link: Link): number {
    const { loop, counts } = this;
    if (!link.isUp || this.chance(this.faults.loss)) {
      counts.lost++;
      return Infinity;
    }
    let at = Math.max(loop.nowMs + this.delayMs() + this.resendMs(), link.clogUntilMs);
    if (at < link.lastArrivalMs) {
      if (this.chance(this.faults.overtake)) counts.overtaken++;
      else at = link.lastArrivalMs;
    }
    link.lastArrivalMs = Math.max(link.lastArrivalMs, at);
    return at;
  }

  deliver(from: Station, bytes: Buffer, message: Message): void {
    const { counts, loop } = this;
    counts.messages++;
    this.onMessage(message);
    const link = this.link(from.id, message.to);
    const at = this.arrivalMs(link);
    if (at === Infinity) {
      if (this.chance(0.3)) this.reportUnreachable(from, message.to);
      return;
    }
    loop.after(at - loop.nowMs, () => this.arrive(message.to, link, bytes));
    // What is forwarded to the leader is proposed as often as it comes, in etcd too: over TCP that is once.
    if (message.type === MessageType.prop || !this.chance(this.faults.repeat)) return;
    counts.repeated++;
    loop.after(at - loop.nowMs + this.delayMs() * 4, () => this.arrive(message.to, link, bytes));
  }

  private arrive(to: NodeId, link: Link, bytes: Buffer): void {
    const station = this.station(to);
    if (station === undefined || !link.isUp) return;
    const message = copyOf(bytes);
    station.enter(() => {
      if (station.events.isRemoved(message.from)) this.refuse(message.from, to);
      else station.events.message(message);
    });
  }

  dial(from: Station, to: NodeId): void {
    const station = this.station(to)!;
    station.enter(() => {
      if (station.events.isRemoved(from.id)) this.refuse(from.id, to);
      else station.met(from.id, from.url);
    });
  }

  /** The answer 410 to whoever was removed. */
  private refuse(from: NodeId, by: NodeId): void {
    const sender = this.station(from);
    if (sender === undefined) return;
    this.loop.after(1, () => sender.enter(() => sender.events.refused('the member has been permanently removed', by)));
  }

  reportUnreachable(from: Station, to: NodeId): void {
    this.loop.after(1, () => from.enter(() => from.events.unreachable(to)));
  }
}

function copyOf(bytes: Buffer): Message {
  const own = Buffer.from(bytes);
  const message = decodeMessage(own, 0, own.length);
  assert(message !== null, 'a message of ours does not parse');
  return message;
}

function encoded(message: Message): Buffer {
  const bytes = Buffer.alloc(encodedMessageBytes(message));
  writeMessage(message, bytes, 0);
  return bytes;
}

/** A member's way to its peers. */
export class SimTransport implements PeerTransport {
  private readonly network: SimNetwork;
  private readonly station: Station;
  /** Peers and remotes, with when each became known. */
  private readonly known = new Map<NodeId, string>();
  private outbox: { readonly bytes: Buffer; readonly message: Message }[] = [];
  private readonly transfers = new Set<Transfer>();

  constructor(network: SimNetwork, station: Station) {
    this.network = network;
    this.station = station;
    // Who dials says where it is: a member of whom this one has not heard yet can be answered, as the leader that adds what lags.
    station.met = (id, url) => {
      if (!this.known.has(id)) this.addPeer(id, [url]);
    };
    this.dial();
  }

  /** The streams to the peers are opened anew now and then: who was removed hears so even when it has nothing to say. */
  private dial(): void {
    const { network, station } = this;
    network.loop.after(1000, () => {
      if (!station.isAlive()) return;
      for (const id of this.known.keys()) if (this.activeSinceMs(id) !== null) network.dial(station, id);
      this.dial();
    });
  }

  send(messages: readonly Message[]): void {
    for (const message of messages) {
      if (!this.known.has(message.to)) continue;
      // Now: what raft does with its buffers afterwards is not in it.
      const bytes = encoded(message);
      this.outbox.push({ bytes, message: copyOf(bytes) });
    }
  }

  flush(): void {
    const { outbox } = this;
    this.outbox = [];
    for (const { bytes, message } of outbox) this.network.deliver(this.station, bytes, message);
  }

  sendSnapshot(message: Message, body: SnapshotBody): void {
    const { network, station, transfers } = this;
    network.counts.snapshots++;
    const transfer = new Transfer(network, station, encoded(message), message.to, body, () =>
      transfers.delete(transfer),
    );
    transfers.add(transfer);
    transfer.start(this.known.has(message.to));
  }

  addPeer(id: NodeId, urls: readonly string[]): void {
    if (id !== this.station.id) this.known.set(id, urls[0] ?? '');
  }

  updatePeer(id: NodeId, urls: readonly string[]): void {
    this.addPeer(id, urls);
  }

  removePeer(id: NodeId): void {
    this.known.delete(id);
  }

  activeSinceMs(id: NodeId): number | null {
    const { network, station } = this;
    if (!this.known.has(id) || network.station(id) === undefined) return null;
    const links = [network.link(station.id, id), network.link(id, station.id)];
    if (links.some(({ isUp }) => !isUp)) return null;
    const sinceMs = Math.max(...links.map(({ upSinceMs }) => upSinceMs));
    return station.nowMs() - (network.loop.nowMs - sinceMs);
  }

  stop(): void {
    this.known.clear();
    this.outbox = [];
    for (const transfer of [...this.transfers]) transfer.fail();
  }
}

/** One snapshot on its way: the sender's body is pulled chunk by chunk, each takes its time on the link. */
class Transfer {
  private readonly network: SimNetwork;
  private readonly from: Station;
  private readonly to: NodeId;
  private readonly head: Buffer;
  private readonly body: SnapshotBody;
  private readonly ended: () => void;
  private receiver: Station | null = null;
  private receipt: SnapshotReceipt | null = null;
  /** Chunks that have not arrived, and whether the sender has said that there are no more. */
  private inFlight = 0;
  private readonly arrived: Buffer[] = [];
  private isSent = false;
  private isPaused = false;
  private waitsForReader = false;
  private isOver = false;

  constructor(network: SimNetwork, from: Station, head: Buffer, to: NodeId, body: SnapshotBody, ended: () => void) {
    this.network = network;
    this.from = from;
    this.head = head;
    this.to = to;
    this.body = body;
    this.ended = ended;
  }

  start(isKnown: boolean): void {
    const { network } = this;
    const at = isKnown ? network.arrivalMs(network.link(this.from.id, this.to)) : Infinity;
    if (at === Infinity) {
      network.loop.after(5, () => this.fail());
      return;
    }
    network.loop.after(at - network.loop.nowMs, () => this.begin());
  }

  private begin(): void {
    const receiver = this.network.station(this.to);
    if (this.isOver) return;
    if (receiver === undefined) {
      this.fail();
      return;
    }
    this.receiver = receiver;
    receiver.enter(() => {
      this.receipt = receiver.events.snapshotArrives(copyOf(this.head));
      if (this.receipt === null) {
        this.fail();
        return;
      }
      this.receipt.drained = () => this.drain();
      this.from.enter(() => this.pull());
    });
    // Whoever dies in the middle is noticed after a while.
    this.watch();
  }

  private watch(): void {
    if (this.isOver) return;
    const { network, from, receiver } = this;
    const isUp = network.link(from.id, this.to).isUp;
    if (!from.isAlive() || receiver?.isAlive() !== true || !isUp) this.fail();
    else network.loop.after(200, () => this.watch());
  }

  private pull(): void {
    if (this.isOver) return;
    this.body.sink = {
      chunk: (bytes) => this.push(bytes),
      done: (error) => {
        if (error !== null) this.fail();
        else {
          this.isSent = true;
          this.maybeEnd();
        }
      },
    };
    this.body.resume();
  }

  private push(bytes: Buffer): boolean {
    if (this.isOver) return false;
    const { network } = this;
    if (network.chance(network.faults.cutOff)) {
      network.loop.after(1, () => this.fail());
      return false;
    }
    const link = network.link(this.from.id, this.to);
    // A stream: nothing is lost in the middle, it breaks or it comes.
    const at = Math.max(network.loop.nowMs + 0.2, link.clogUntilMs, link.lastArrivalMs);
    link.lastArrivalMs = at;
    this.inFlight++;
    const copy = Buffer.from(bytes);
    network.loop.after(at - network.loop.nowMs, () => {
      this.inFlight--;
      if (this.isOver) return;
      this.arrived.push(copy);
      this.receiver!.enter(() => this.drain());
    });
    this.isPaused = this.inFlight >= 4;
    return !this.isPaused;
  }

  /** As the receiver. */
  private drain(): void {
    if (this.isOver || this.receipt === null || this.waitsForReader) return;
    while (this.arrived.length > 0) {
      const chunk = this.arrived.shift()!;
      if (!this.receipt.write(chunk)) break;
    }
    if (this.inFlight < 4 && this.isPaused) this.from.enter(() => this.goOn());
    this.maybeEnd();
  }

  private goOn(): void {
    if (this.isOver || !this.isPaused) return;
    this.isPaused = false;
    this.body.resume();
  }

  private maybeEnd(): void {
    const { receiver, receipt } = this;
    if (this.isOver || !this.isSent || this.inFlight > 0 || this.arrived.length > 0 || this.waitsForReader) return;
    if (receiver === null || receipt === null) return;
    this.waitsForReader = true;
    receiver.enter(() => {
      if (this.isOver) return;
      receipt.end((error) => {
        if (this.isOver) return;
        if (error !== null) {
          this.fail();
          return;
        }
        this.finish(true);
        receiver.enter(() => receiver.events.message(copyOf(this.head)));
      });
    });
  }

  fail(): void {
    if (this.isOver) return;
    this.network.counts.snapshotsCut++;
    const { receipt, receiver, body, from } = this;
    this.finish(false);
    from.enter(() => body.cancel());
    if (receipt !== null) receiver!.enter(() => receipt.abort());
  }

  private finish(succeeded: boolean): void {
    this.isOver = true;
    this.ended();
    const { from, to, network } = this;
    network.loop.after(0.5, () => from.enter(() => from.events.snapshotSent(to, succeeded)));
  }
}

/** Side requests: one to the member at a URL, with the delays and cuts of the links both ways. */
export class SimPeerRequests implements PeerRequests {
  private readonly network: SimNetwork;
  private readonly station: Station;

  constructor(network: SimNetwork, station: Station) {
    this.network = network;
    this.station = station;
  }

  request(url: string, request: PeerRequest, done: (error: Error | null, answer: PeerAnswer | null) => void): void {
    const { network, station } = this;
    const { loop } = network;
    network.counts.requests++;
    let isDone = false;
    const end = (error: Error | null, answer: PeerAnswer | null): void => {
      if (isDone) return;
      isDone = true;
      station.enter(() => done(error, answer));
    };
    loop.after(request.timeoutMs ?? 5000, () => end(new Error(`no answer from ${url}`), null));
    const target = network.stationAt(url);
    const at = target === undefined ? Infinity : network.arrivalMs(network.link(station.id, target.id));
    if (target === undefined || at === Infinity) {
      if (network.chance(0.5)) loop.after(1, () => end(new Error(`dial ${url}: connection refused`), null));
      return;
    }
    loop.after(at - loop.nowMs, () =>
      target.enter(() =>
        target.answer(request, (answer) => {
          const back = network.arrivalMs(network.link(target.id, station.id));
          if (back !== Infinity) loop.after(back - loop.nowMs, () => end(null, answer));
        }),
      ),
    );
  }
}
