// Goal: the real etcd takes our transport for a member's: streams both ways, appends in their short form, posts, snapshots, refusals.
// Method: an etcd of two members, of which the other one is nothing but our transport and a few lines that answer as raft would.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { Program, type Scratch, scratchFolder, until } from '../../test-e2e/program.ts';
import { clusterId, memberId } from '../config/cluster-id.ts';
import { type Entry, EntryType, type Message, MessageType, NO_BYTES, type NodeId, newMessage } from '../raft/types.ts';
import { freePorts } from '../testing/free-port.ts';
import { peerBinaries } from '../testing/peer-programs.ts';
import { TransportMember } from '../testing/transport-member.ts';
import { etcdTimings } from './transport-context.ts';

const binary = join(peerBinaries, 'etcd');

/** An etcd named "real" and our member, named "fake" there. */
class Pair {
  readonly scratch: Scratch = scratchFolder('peer');
  readonly etcdId: NodeId;
  readonly etcdUrl: string;
  readonly clientUrl: string;
  readonly ours: TransportMember;
  readonly #fakeUrl: string;
  etcd: Program;

  private constructor(etcdUrl: string, clientUrl: string, fakeUrl: string, etcdId: NodeId, ours: TransportMember) {
    this.etcdUrl = etcdUrl;
    this.clientUrl = clientUrl;
    this.#fakeUrl = fakeUrl;
    this.etcdId = etcdId;
    this.ours = ours;
    this.etcd = this.#spawn('new');
  }

  static async start(otherCluster = false): Promise<Pair> {
    const [peer, client, fake] = (await freePorts(3)).map((port) => `http://127.0.0.1:${port}`) as [
      string,
      string,
      string,
    ];
    const etcdId = memberId([peer], 'token');
    const fakeId = memberId([fake], 'token');
    const ours = await TransportMember.start({
      id: fakeId,
      clusterId: otherCluster ? 0xbadn : clusterId([etcdId, fakeId]),
      port: Number(fake.slice(fake.lastIndexOf(':') + 1)),
      timings: etcdTimings,
    });
    return new Pair(peer, client, fake, etcdId, ours);
  }

  #spawn(state: string): Program {
    const client = this.clientUrl;
    return new Program({
      name: `etcd-${state}`,
      file: binary,
      folder: this.scratch.folder,
      args: [
        ...['--name', 'real', '--data-dir', 'data', '--initial-cluster-token', 'token'],
        ...['--initial-cluster', `real=${this.etcdUrl},fake=${this.#fakeUrl}`],
        ...['--initial-advertise-peer-urls', this.etcdUrl, '--listen-peer-urls', this.etcdUrl],
        ...['--listen-client-urls', client, '--advertise-client-urls', client],
        ...['--snapshot-count', '10', '--snapshot-catchup-entries', '5'],
      ],
    });
  }

  async restart(): Promise<void> {
    await this.etcd.stop('SIGKILL');
    this.etcd = this.#spawn('again');
  }

  /** Not execFileSync: our member has to answer meanwhile. */
  async ctl(...args: string[]): Promise<string> {
    const file = join(peerBinaries, 'etcdctl');
    return (await promisify(execFile)(file, ['--endpoints', this.clientUrl, ...args], { env: {} })).stdout;
  }

  send(type: MessageType, fields: Partial<Message>): void {
    const { ours } = this;
    ours.transport.send([Object.assign(newMessage(type, this.etcdId), { from: ours.id }, fields)]);
    ours.transport.flush();
  }

  /** Votes for the etcd and acknowledges all that it sends, or has none of it. */
  follow(takesAppends: boolean): void {
    this.ours.onMessage = (message): void => {
      const { term, index, entries, context } = message;
      if (message.type === MessageType.preVote) this.send(MessageType.preVoteResp, { term });
      if (message.type === MessageType.vote) this.send(MessageType.voteResp, { term });
      if (message.type === MessageType.heartbeat) this.send(MessageType.heartbeatResp, { term, context });
      if (message.type !== MessageType.app) return;
      if (takesAppends) this.send(MessageType.appResp, { term, index: index + entries.length });
      else this.send(MessageType.appResp, { term, index, reject: true });
    };
  }

  async waitForStreams(): Promise<void> {
    await until('both streams both ways', 10_000, () => {
      const established = this.ours.logLines.filter((line) => line.includes('"established TCP streaming'));
      return (
        ['stream-writer-type":"stream Message', 'stream-writer-type":"stream MsgApp v2'].every((text) =>
          established.some((line) => line.includes(text)),
        ) &&
        ['stream-reader-type":"stream Message', 'stream-reader-type":"stream MsgApp v2'].every((text) =>
          established.some((line) => line.includes(text)),
        )
      );
    });
  }

  async waitFor(type: MessageType, where: (message: Message) => boolean = () => true): Promise<Message> {
    const found = (): Message | undefined =>
      this.ours.messages.find((message) => message.type === type && where(message));
    await until(`a message of type ${type}`, 15_000, () => found() !== undefined);
    return found()!;
  }

  async stop(): Promise<void> {
    await this.etcd.stop('SIGKILL');
    await this.ours.stop();
    this.scratch.remove();
  }
}

describe('http transport beside etcd', { skip: !existsSync(binary) }, () => {
  const pairs: Pair[] = [];
  const begin = async (otherCluster = false): Promise<Pair> => {
    const pair = await Pair.start(otherCluster);
    pairs.push(pair);
    pair.ours.transport.addPeer(pair.etcdId, [pair.etcdUrl]);
    return pair;
  };
  after(async () => {
    for (const pair of pairs) await pair.stop();
  });

  it('follows an etcd: votes, appends, then a snapshot with its database', async () => {
    const pair = await begin();
    await pair.waitForStreams();
    const asked = await pair.waitFor(MessageType.preVote);
    assert.equal(asked.from, pair.etcdId);
    assert.equal(asked.to, pair.ours.id);
    // It has the entries that name both members.
    assert.equal(asked.index, 2);
    pair.follow(true);
    await pair.waitFor(MessageType.app, ({ entries }) => entries.length > 0);
    await until('etcd serves', 15_000, async () => (await pair.ctl('put', 'a', 'b')) === 'OK\n');
    for (let i = 0; i < 25; i++) await pair.ctl('put', `key${i}`, 'v'.repeat(i));
    const indexes = pair.ours.messages.flatMap(({ entries }) => entries.map(({ index }) => index));
    assert.ok(indexes.length >= 26 && pair.ours.messages.some(({ entries }) => entries[0]?.data.includes('key24')));

    // After a restart it does not know how far we are; we say that we have nothing, and its log begins later.
    pair.follow(false);
    await pair.restart();
    const snapshot = await pair.waitFor(MessageType.snap);
    assert.ok(snapshot.snapshot!.meta.index > 20);
    assert.deepEqual([...snapshot.snapshot!.meta.confState.voters].sort(), [pair.etcdId, pair.ours.id].sort());
    const database = pair.ours.databases[0]!;
    // bbolt's magic, in the first page behind its header.
    assert.equal(database.readUInt32LE(16), 0xed0cdaed);
    // What it had committed to its file before the kill.
    assert.ok(database.includes('key15'));
    await until('etcd knows', 10_000, () => pair.etcd.log().includes('"sent database snapshot"'));
  });

  it('leads an etcd: its vote, appends as messages and in their short form, its acknowledgements', async () => {
    const pair = await begin();
    await pair.waitForStreams();
    pair.send(MessageType.vote, { term: 9, index: 2, logTerm: 1 });
    const vote = await pair.waitFor(MessageType.voteResp);
    assert.ok(!vote.reject && vote.term === 9);
    const entry = (index: number, data: Buffer): Entry => ({ term: 9, index, type: EntryType.normal, data });
    const append = (index: number, logTerm: number, entries: readonly Entry[], commit: number): void =>
      pair.send(MessageType.app, { term: 9, index, logTerm, entries, commit });
    append(2, 1, [entry(3, NO_BYTES)], 2);
    const first = await pair.waitFor(MessageType.appResp, ({ index }) => index === 3);
    assert.equal(first.reject, false);
    const before = pair.ours.network.peerSentBytes.with(pair.etcdId.toString(16)).value;
    append(3, 9, [entry(4, NO_BYTES), entry(5, NO_BYTES)], 3);
    append(5, 9, [entry(6, NO_BYTES)], 5);
    await pair.waitFor(MessageType.appResp, ({ index }) => index === 6);
    const bytes = pair.ours.network.peerSentBytes.with(pair.etcdId.toString(16)).value - before;
    assert.ok(bytes < 120, `${bytes} bytes are not the short form`);
    // Heartbeats of the link for longer than etcd waits for one, and no stream lost.
    await new Promise((resolve) => setTimeout(resolve, 6500));
    assert.doesNotMatch(pair.etcd.log(), /lost TCP streaming|prober detected unhealthy/);
    assert.ok(!pair.ours.logLines.some((line) => /lost TCP streaming|prober detected unhealthy/.test(line)));
    assert.ok(pair.ours.network.peerRoundTrip.with(pair.etcdId.toString(16)).sum > 0);
    // A forwarded request: how far it may read, answered by a message stream.
    pair.send(MessageType.heartbeat, { term: 9, commit: 6, context: Buffer.from('12345678') });
    const beat = await pair.waitFor(MessageType.heartbeatResp, ({ context }) => context.length === 8);
    assert.equal(beat.context.toString(), '12345678');
  });

  it('is refused by an etcd of another cluster, and refuses it', async () => {
    const pair = await begin(true);
    const { ours } = pair;
    const logged = (text: string): string | undefined => ours.logLines.find((line) => line.includes(text));
    await until('a refusal', 10_000, () => logged('ignored by remote peer due to cluster ID mismatch') !== undefined);
    await until('etcd is refused', 10_000, () => logged('request cluster ID mismatch') !== undefined);
    await until('etcd says so', 10_000, () =>
      pair.etcd.log().includes('request sent was ignored by remote peer due to cluster ID mismatch'),
    );
    pair.send(MessageType.heartbeat, { term: 1 });
    await until(
      'a post is refused',
      10_000,
      () => logged('request sent was ignored due to cluster ID mismatch') !== undefined,
    );
    assert.deepEqual(ours.messages, []);
  });
});
