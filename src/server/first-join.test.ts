// Goal: a machine that stops in the middle of a member's first start in a cluster that runs, at whatever operation on its disk, joins it
// the next time, under the id that the cluster has for it, with the same flags. Method: as first-start.test.ts, the simulated disk stops
// at its n-th change and loses or tears what was not synced; the cluster is one leader that the test plays, which sends its log from
// where the member says that its own ends, and takes the member's word for what is durable.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import type { PeerEvents, PeerRequests, PeerTransport } from '../peer/peer-transport.ts';
import { encode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import {
  ConfChangeType,
  type Entry,
  EntryType,
  type Message,
  MessageType,
  NO_BYTES,
  newMessage,
} from '../raft/types.ts';
import { encodeMember } from '../snapshot/schema.ts';
import { configFor, type Network, put, StartDisk, type Started, start, whenReady } from '../testing/crashed-start.ts';
import { silentTransport } from '../testing/silent-transport.ts';
import { SimCrash } from '../testing/sim-disk.ts';

const seed = Number(process.env['FIRST_START_SEED'] ?? 1);
const term = 7;
const leader = {
  id: 5n,
  peerUrls: ['http://leader:2380'],
  isLearner: false,
  name: 'leader',
  clientUrls: ['http://l:1'],
};
const joiner = { id: 0xabc_0000_0000_0001n, peerUrls: ['http://own:2380'], isLearner: false, name: '', clientUrls: [] };

/** The leader of a cluster of two, of which the other is the member under test. */
class PlayedLeader {
  private readonly entries: Entry[] = [];
  private commit = 0;
  /** Counts starts: what was sent to one that is gone does not reach the next. */
  private generation = 0;

  constructor() {
    for (const member of [leader, joiner]) {
      const change = { type: ConfChangeType.addNode, nodeId: member.id, context: encodeMember(member) };
      this.add(EntryType.confChange, encode(ConfChange, change));
      this.add(EntryType.normal, NO_BYTES);
    }
  }

  private add(type: EntryType, data: Buffer): void {
    this.entries.push({ term, index: this.entries.length + 1, type, data });
  }

  /** The way of one start of the member to this leader. */
  network(): Network {
    const generation = ++this.generation;
    let events: PeerEvents;
    const deliver = (message: Message): void => {
      setImmediate(() => {
        if (generation === this.generation) events.message(message);
      });
    };
    const transport: PeerTransport = {
      ...silentTransport,
      activeSinceMs: () => 0,
      send: (messages) => {
        for (const message of messages) for (const answer of this.answers(message)) deliver(answer);
      },
    };
    const peerRequests: PeerRequests = {
      request: (url, { path: asked }, done) => {
        const headers = { 'x-etcd-cluster-id': 'c1' };
        const body = url === leader.peerUrls[0] ? this.body(asked) : undefined;
        setImmediate(() => {
          if (body === undefined) done(new Error('nobody is there'), null);
          else done(null, { status: 200, headers, body: Buffer.from(body) });
        });
      },
    };
    return {
      newTransport: (given) => {
        events = given;
        // It knows the member, whether that knows it or not (etcd's streams say where a peer is), and begins after its own last entry.
        deliver(this.append(this.entries.length + 1));
        return transport;
      },
      peerRequests,
    };
  }

  private body(asked: string): string | undefined {
    if (asked === '/members') return `[${[leader, joiner].map((member) => encodeMember(member).toString()).join(',')}]`;
    if (asked === '/version') return '{"etcdserver":"3.7.1","etcdcluster":"3.7.0"}';
    return asked === '/downgrade/enabled' ? 'false' : undefined;
  }

  private append(from: number): Message {
    const previous = this.entries[from - 2];
    return {
      ...newMessage(MessageType.app, joiner.id),
      from: leader.id,
      term,
      index: from - 1,
      logTerm: previous?.term ?? 0,
      entries: this.entries.slice(from - 1),
      commit: this.commit,
    };
  }

  private answers(message: Message): Message[] {
    if (message.type === MessageType.appResp) {
      if (message.reject) return [this.append(Math.min(message.rejectHint, message.index) + 1)];
      const isNew = message.index > this.commit;
      this.commit = Math.max(this.commit, message.index);
      return isNew || message.index < this.entries.length ? [this.append(message.index + 1)] : [];
    }
    if (message.type !== MessageType.prop) return [];
    const from = this.entries.length + 1;
    for (const { type, data } of message.entries) this.add(type, data);
    return [this.append(from)];
  }
}

const flags = [
  '--initial-cluster=leader=http://leader:2380,m1=http://own:2380',
  '--initial-cluster-state=existing',
  '--initial-advertise-peer-urls=http://own:2380',
];

/** Returns whether the first start came to its end before the disk stopped. */
async function stopAndJoin(folder: string, stops: number): Promise<boolean> {
  const dataDir = path.join(folder, String(stops));
  const config = await configFor(dataDir, ...flags);
  const disk = new StartDisk(new SeededRandom(seed * 1000 + stops));
  disk.mkdir(folder);
  disk.crashAfter = disk.changes + stops;
  const played = new PlayedLeader();
  try {
    const isWhole = await firstJoin();
    disk.crash();
    disk.crashAfter = Number.POSITIVE_INFINITY;
    mkdirSync(path.join(dataDir, 'member', 'snap'), { recursive: true });
    await nextJoin(isWhole);
    return isWhole;
  } catch (error) {
    throw new Error(`stopped after ${stops} changes, seed ${seed}`, { cause: error });
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }

  async function firstJoin(): Promise<boolean> {
    let started: Started;
    try {
      started = await start(config, disk, seed, played.network());
    } catch (error) {
      assert.ok(error instanceof SimCrash, String(error));
      await disk.free();
      return false;
    }
    try {
      await whenReady(started);
      assert.equal(await Promise.race([put(started.member, 'first'), started.crashed]), 2);
      return true;
    } catch (error) {
      assert.ok(error instanceof SimCrash, String(error));
      return false;
    } finally {
      await new Promise<void>((done) => started.member.parts.backend.close(done));
    }
  }

  async function nextJoin(isWhole: boolean): Promise<void> {
    const started = await start(config, disk, seed, played.network());
    const { member } = started;
    await whenReady(started);
    const { cluster, id, raft, store } = member.parts;
    assert.equal(id, joiner.id);
    assert.equal(cluster.id, 0xc1n);
    assert.deepEqual(
      cluster.members().map((one) => [one.id, one.name]),
      [
        [leader.id, 'leader'],
        [joiner.id, 'm1'],
      ],
    );
    assert.deepEqual([...raft.status().confState.voters].sort(), [leader.id, joiner.id]);
    assert.equal(member.leader, leader.id);
    const revision = store.currentRevision;
    assert.ok(revision === 2 || (revision === 1 && !isWhole), `revision ${revision}`);
    assert.equal(await put(member, 'next'), revision + 1);
    await new Promise<void>((done) => member.stop(done));
  }
}

test('stopped at each operation of the first start in a running cluster, it joins the next time', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'keelson-first-join-'));
  try {
    let stops = 0;
    while (!(await stopAndJoin(folder, stops))) stops++;
    assert.ok(stops > 15, `a first start is more than ${stops} operations`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
