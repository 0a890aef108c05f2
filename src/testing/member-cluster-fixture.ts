// Several members in one process, each over real parts in a folder of its own, and a network in memory between them: links can be cut,
// and requests to peer listeners reach the admin of the member that has the URL. Real ticks, ten times as fast as the defaults. No
// snapshots between members: their logs stay whole.

import { setImmediate as turn } from 'node:timers/promises';
import { Admin } from '../admin/admin.ts';
import { memberSource } from '../admin/member-source.ts';
import { systemClock } from '../io/clock.ts';
import type { PeerEvents, PeerRequests, PeerTransport } from '../peer/peer-transport.ts';
import { decodeMessage, encodedMessageBytes, writeMessage } from '../peer/raft-message.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import type { Message, NodeId } from '../raft/types.ts';
import type { Member } from '../server/member.ts';
import type { MembersWaiter } from '../server/membership.ts';
import { Logger } from '../telemetry/logger.ts';
import { MemberFixture } from './member-fixture.ts';

const TICK_MS = 10;
/** What needs no tick takes some turns of the event loop, each of its messages one or two. */
const turnsMax = 100;
/** Who was removed dials the others anew so long after it has applied that, and at every tick from then on. */
const redialMs = 1000;
/** Connected since long ago, as far as health checks go. */
const LONG_AGO_MS = -1e9;

export type MembersOutcome = EtcdError | Parameters<MembersWaiter>[1];

class Node {
  readonly name: string;
  readonly url: string;
  readonly fixture: MemberFixture;
  readonly peers: Set<NodeId> = new Set();
  events: PeerEvents | null = null;
  admin: Admin | null = null;
  ticker: NodeJS.Timeout | null = null;
  id: NodeId = 0n;
  removedMs: number | null = null;

  constructor(name: string, fixture: MemberFixture) {
    this.name = name;
    this.url = `http://${name}:2380`;
    this.fixture = fixture;
  }

  get member(): Member {
    return this.fixture.member;
  }
}

export class MemberCluster {
  readonly nodes: Map<string, Node> = new Map();
  /** Names of members that no message comes from or gets to. */
  readonly cut: Set<string> = new Set();
  /** How long links are up for, as the members see it. */
  connectedSinceMs: number = LONG_AGO_MS;
  /** Paths that were asked for at peer listeners, with the name of who was asked. */
  readonly asked: string[] = [];

  private node(name: string): Node {
    const node = this.nodes.get(name);
    if (node === undefined) throw new Error(`no member ${name}`);
    return node;
  }

  member(name: string): Member {
    return this.node(name).member;
  }

  fixture(name: string): MemberFixture {
    return this.node(name).fixture;
  }

  id(name: string): bigint {
    return this.node(name).id;
  }

  url(name: string): string {
    return this.nodes.get(name)?.url ?? `http://${name}:2380`;
  }

  // --- Life ---

  /** Starts a new cluster of these; resolves when all of them serve. */
  async begin(names: readonly string[], ...flags: string[]): Promise<void> {
    const initial = names.map((name) => `${name}=${this.url(name)}`).join(',');
    const state = [`--initial-cluster=${initial}`, '--initial-cluster-state=new'];
    await Promise.all(names.map((name) => this.start(name, ...state, ...flags)));
  }

  /** Starts a member that was added to the running cluster; resolves when it serves. */
  async join(name: string, ...flags: string[]): Promise<void> {
    const others = [...this.nodes.values()].filter((node) => node.name !== name && node.ticker !== null);
    const known = new Map(others.map((node) => [node.url, node.name]));
    known.set(this.url(name), name);
    const members = others[0]!.member.parts.cluster.members();
    const initial = members.map(({ peerUrls }) => `${known.get(peerUrls[0]!) ?? 'unknown'}=${peerUrls[0]!}`).join(',');
    await this.start(name, `--initial-cluster=${initial}`, '--initial-cluster-state=existing', ...flags);
  }

  /** A learner is never ready to serve as others are: it cannot publish itself before it has a leader. */
  private async start(name: string, ...flags: string[]): Promise<void> {
    const node = this.nodes.get(name) ?? new Node(name, new MemberFixture());
    this.nodes.set(name, node);
    const { fixture } = node;
    fixture.seed = this.nodes.size;
    fixture.peerRequests = this.requests(node);
    fixture.newTransport = (events, { id }) => {
      node.id = id;
      node.events = events;
      return this.transport(node);
    };
    await fixture.open(`--name=${name}`, `--initial-advertise-peer-urls=${node.url}`, ...flags);
    node.admin = this.newAdmin(node);
    node.removedMs = null;
    node.ticker = setInterval(() => {
      node.member.tick();
      if (node.member.parts.cluster.isRemoved(node.id)) this.redial(node);
    }, TICK_MS);
    await new Promise<void>((ready) => node.member.start(ready));
  }

  /** What a member answers at its peer listener. */
  admin(name: string): Admin {
    return this.node(name).admin!;
  }

  private newAdmin({ member, fixture }: Node): Admin {
    const sink = { write: (line: string): void => void fixture.lines.push(line), flush: (): void => {} };
    return new Admin({
      source: memberSource({
        member,
        etcdVersion: '3.7.1',
        metricsText: async () => '',
        setTimer: (delayMs, callback) => systemClock.setTimer(delayMs, callback),
      }),
      metrics: fixture.metrics,
      logger: new Logger({ level: 'debug', format: 'json', sink, now: () => 0 }),
      access: { cors: ['*'], hostWhitelist: ['*'] },
      requestTimeoutMs: member.requestTimeoutMs,
    });
  }

  async stop(name: string): Promise<void> {
    const node = this.node(name);
    if (node.ticker === null) return;
    clearInterval(node.ticker);
    node.ticker = null;
    await node.fixture.stop();
  }

  /** Goes on from what its folder holds. */
  async restart(name: string, ...flags: string[]): Promise<void> {
    await this.stop(name);
    await this.start(name, ...flags);
  }

  async end(): Promise<void> {
    for (const name of this.nodes.keys()) await this.stop(name);
    for (const { fixture } of this.nodes.values()) fixture.remove();
  }

  // --- What tests wait for ---

  /** Waits for the event loop to bring it about; the test runner's time-out is the bound. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  /** Ends all ticks but those of the test: time stands still. */
  stopTicks(): void {
    for (const { member } of this.nodes.values()) member.tick = () => {};
  }

  /** Until it is so, or until nothing more comes without a tick. */
  async turns(isDone: () => boolean = () => false): Promise<void> {
    for (let i = 0; i < turnsMax && !isDone(); i++) await turn();
  }

  private running(): Node[] {
    return [...this.nodes.values()].filter(({ name, ticker }) => ticker !== null && !this.cut.has(name));
  }

  /** The member that leads, once all that are not cut off agree on it. */
  async leader(): Promise<string> {
    const agreed = (): Node | undefined => {
      const nodes = this.running();
      const leader = nodes.find(({ member }) => member.isLeader);
      return nodes.every(({ member }) => leader !== undefined && member.leader === leader.id) ? leader : undefined;
    };
    await this.until(() => agreed() !== undefined);
    return agreed()!.name;
  }

  /** A member that does not lead. */
  async follower(): Promise<string> {
    const leader = await this.leader();
    return this.running().find(({ name, member }) => name !== leader && !member.isLearner)!.name;
  }

  /** Until all that are not cut off have applied what the leader has. */
  async settled(): Promise<void> {
    const leader = this.member(await this.leader());
    await this.until(() => this.running().every(({ member }) => member.appliedIndex >= leader.appliedIndex));
  }

  // --- Changes, asked of one member ---

  add(at: string, name: string, isLearner = false): Promise<MembersOutcome> {
    return outcome((done) => this.member(at).membership.add([this.url(name)], isLearner, done, () => {}));
  }

  remove(at: string, id: bigint): Promise<MembersOutcome> {
    return outcome((done) => this.member(at).membership.remove(id, done));
  }

  update(at: string, id: bigint, ...urls: string[]): Promise<MembersOutcome> {
    return outcome((done) => this.member(at).membership.update(id, urls, done));
  }

  promote(at: string, id: bigint): Promise<MembersOutcome> {
    return outcome((done) => this.member(at).membership.promote(id, done));
  }

  // --- The network ---

  /** A member that was removed, by those who know: they answer 410. */
  private redial(node: Node): void {
    const nowMs = node.member.parts.nowMs();
    node.removedMs ??= nowMs;
    if (nowMs < node.removedMs + redialMs) return;
    for (const to of this.nodes.values()) {
      if (!node.peers.has(to.id) || !this.isLinked(node, to) || !to.events!.isRemoved(node.id)) continue;
      node.events!.refused('the member has been permanently removed from the cluster', to.id);
    }
  }

  private isLinked(from: Node, to: Node): boolean {
    return to.ticker !== null && !this.cut.has(from.name) && !this.cut.has(to.name);
  }

  private transport(node: Node): PeerTransport {
    const find = (id: NodeId): Node | undefined => [...this.nodes.values()].find((other) => other.id === id);
    const known = node.peers;
    known.clear();
    return {
      send: (messages) => {
        for (const message of messages) {
          const to = known.has(message.to) ? find(message.to) : undefined;
          if (to !== undefined && this.isLinked(node, to)) this.deliver(to, message);
          else setImmediate(() => node.ticker !== null && node.events!.unreachable(message.to));
        }
      },
      flush: () => {},
      sendSnapshot: () => {
        throw new Error('no snapshots here: the logs are whole');
      },
      addPeer: (id) => void known.add(id),
      updatePeer: () => {},
      removePeer: (id) => void known.delete(id),
      activeSinceMs: (id) => {
        const to = known.has(id) ? find(id) : undefined;
        return to !== undefined && this.isLinked(node, to) ? this.connectedSinceMs : null;
      },
      stop: () => known.clear(),
    };
  }

  /** As bytes, in a later turn, in order. */
  private deliver(to: Node, message: Message): void {
    const bytes = Buffer.alloc(encodedMessageBytes(message));
    writeMessage(message, bytes, 0);
    setImmediate(() => {
      if (to.ticker === null || this.cut.has(to.name) || to.events!.isRemoved(message.from)) return;
      to.events!.message(decodeMessage(bytes, 0, bytes.length)!);
    });
  }

  private requests(from: Node): PeerRequests {
    return {
      request: (url, { method, path, body: sent }, done) => {
        const to = [...this.nodes.values()].find((node) => node.url === url);
        if (to === undefined || to.admin === null || !this.isLinked(from, to)) {
          setImmediate(() => done(new Error(`nobody is at ${url}`), null));
          return;
        }
        this.asked.push(`${method} ${path} of ${to.name}`);
        // It reads through the quorum, which a cluster that grows from one member lacks: whoever joins would wait for its time-out.
        if (path === '/downgrade/enabled') {
          setImmediate(() => done(null, { status: 404, headers: {}, body: Buffer.alloc(0) }));
          return;
        }
        const request = { method, target: path, host: '', origin: '', secure: false, ...(sent && { body: sent }) };
        void to.admin.handlePeer(request).then(({ status, headers, body }) => {
          const lower = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
          done(null, { status, headers: lower, body: typeof body === 'string' ? Buffer.from(body) : body });
        });
      },
    };
  }
}

function outcome(ask: (done: MembersWaiter) => void): Promise<MembersOutcome> {
  return new Promise((resolve) => ask((error, members) => resolve(error ?? members)));
}
