// Goal: a cluster's members show what etcd's show, in every role: metrics, health, status, refusals, log. Method: the same life of a
// cluster (cluster-scenario.ts) with etcd and with keelson; what was seen of each member after each step is compared, and what cannot be
// equal is listed here with its reason.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Scenario, ScenarioRun, type Sight } from './cluster-scenario.ts';
import { scratchFolder } from './program.ts';

const scratch = scratchFolder('cluster-metrics');
let etcd: Scenario;
let keelson: Scenario;

before(async () => {
  // Both at once: they mostly wait.
  [etcd, keelson] = await Promise.all([
    ScenarioRun.play('etcd', scratch.folder, 'etcd'),
    ScenarioRun.play('keelson', scratch.folder, 'keelson'),
  ]);
});
after(() => scratch.remove());

/** Series whose presence cannot be equal, by how their names begin. */
const otherSeries: readonly (readonly [start: string, reason: string])[] = [
  ['go_', 'the Go runtime'],
  ['nodejs_', 'the Node runtime'],
  ['process_', 'the process'],
  ['etcd_server_go_version', 'says what runs it'],
  ['etcd_debugging_store_', 'the v2 store, which etcd fills from its snapshots and keelson does not have'],
  ['etcd_network_peer_received_bytes_total', 'etcd counts the heartbeats of a stream for From="0"'],
  ['etcd_network_peer_sent_failures_total', 'whether something was under way when a peer was lost'],
  ['etcd_network_peer_round_trip_time_seconds', 'probes of a new peer, in their own rhythm'],
  ['etcd_network_disconnected_peers_total', 'a learner that installs a snapshot takes new peers there'],
  [
    'etcd_server_apply_duration_seconds_count{op="unknown"',
    'entries that etcd replays after a start and does not apply',
  ],
  ['etcd_server_apply_duration_seconds_count{op="ClusterVersionSet"', 'the same'],
  ['etcd_server_request_duration_seconds_count{success="true",type="ClusterVersionSet"', 'of who led first'],
  ['etcd_server_request_duration_seconds_count{success="true",type="ClusterMemberAttrSet"', 'tried again or not'],
  ['etcd_server_request_duration_seconds_count{success="false"', 'how many were under way without a leader'],
];
const lateServices = /grpc_service="(v3electionpb\.Election|v3lockpb\.Lock)"/;

/** Of a member that started again: known to etcd from the log that it replays. */
const forgottenPeer = /^etcd_network_known_peers\{Local="ID-m[123]",Remote="ID-m4"\}$/;

const isOther = (name: string): boolean =>
  lateServices.test(name) || forgottenPeer.test(name) || otherSeries.some(([start]) => name.startsWith(start));

/** Values that the script determines. */
const exact = [
  /^etcd_server_(has_leader|is_learner|id|proposals_pending|quota_backend_bytes|feature_enabled)\b/,
  /^etcd_server_(learner_promote_successes|snapshot_apply_in_progress_total|version)\b/,
  /^etcd_cluster_version\b/,
  /^etcd_network_(active_peers|known_peers)\b/,
  /^etcd_network_snapshot_(send|receive)_(success|inflights_total)\b/,
  /^etcd_debugging_server_alarms\b/,
];
/** Whoever was elected there is chance. */
const electedSteps = ['leader lost', 'together'];

const stepOf = (where: string): string => where.slice(0, where.lastIndexOf(' '));

/** Whoever was not elected when the leader was lost is the one that starts again later, and counts anew. */
function wereElectedAlike(): boolean {
  return (
    valueAt(etcd, 'leader lost m2', 'etcd_server_is_leader') ===
    valueAt(keelson, 'leader lost m2', 'etcd_server_is_leader')
  );
}

function differences(differ: (where: string, etcd: Sight, keelson: Sight) => string[]): string[] {
  const found: string[] = [];
  for (const [where, theirs] of etcd.sights) {
    const ours = keelson.sights.get(where);
    // A member that stays alone is a follower: which one depends on who was elected.
    if (ours === undefined) continue;
    if (stepOf(where) === 'together' && !wereElectedAlike()) continue;
    for (const line of differ(where, theirs, ours)) found.push(`${where}: ${line}`);
  }
  return found;
}

const valueAt = ({ sights }: Scenario, where: string, name: string): number =>
  sights.get(where)?.series.get(name) ?? Number.NaN;

describe('metrics of a cluster', () => {
  it('every step was seen of every member', () => {
    const steps = ({ sights }: Scenario): string[] => [...sights.keys()].filter((key) => !key.startsWith('alone'));
    assert.deepEqual(steps(keelson), steps(etcd));
    assert.ok(steps(etcd).length > 20);
  });

  it('families and series are the same in every role', () => {
    const found = differences((_where, theirs, ours) => {
      const lines: string[] = [];
      for (const name of new Set([...theirs.series.keys(), ...ours.series.keys()])) {
        if (isOther(name) || theirs.series.has(name) === ours.series.has(name)) continue;
        lines.push(`${name}: etcd ${theirs.series.get(name)}, keelson ${ours.series.get(name)}`);
      }
      for (const [name, { type }] of theirs.families) {
        if (ours.families.has(name) && ours.families.get(name)!.type !== type) lines.push(`${name}: not a ${type}`);
      }
      return lines;
    });
    assert.deepEqual(found, []);
  });

  it('values that the script determines are the same', () => {
    // A new etcd may count a peer twice: it knew its address first, then the member, and both were active.
    let compared = 0;
    const found = differences((where, theirs, ours) => {
      const lines: string[] = [];
      for (const [name, value] of theirs.series) {
        const isLeader = name === 'etcd_server_is_leader' && !electedSteps.includes(stepOf(where));
        if (forgottenPeer.test(name) || (!isLeader && !exact.some((pattern) => pattern.test(name)))) continue;
        compared++;
        const expected = name.startsWith('etcd_network_active_peers') ? Math.min(value, 1) : value;
        if (ours.series.get(name) !== expected) lines.push(`${name}: etcd ${value}, keelson ${ours.series.get(name)}`);
      }
      return lines;
    });
    assert.deepEqual(found, []);
    assert.ok(compared > 200, `${compared} compared`);
  });

  it('changes of the leader are counted by every member that sees them', () => {
    const name = 'etcd_server_leader_changes_seen_total';
    for (const member of ['m1', 'm2', 'm3']) {
      for (const run of [etcd, keelson]) {
        const moved = valueAt(run, `moved ${member}`, name) - valueAt(run, `used ${member}`, name);
        assert.equal(moved, 1, `${run.kind} ${member}`);
      }
    }
    for (const run of [etcd, keelson]) {
      const lost = valueAt(run, 'leader lost m2', name) - valueAt(run, 'removed m2', name);
      assert.ok(lost >= 1, `${run.kind}: ${lost}`);
    }
  });

  it('one leads, and all know of it', () => {
    for (const run of [etcd, keelson]) {
      for (const [step, members] of [
        ['leader lost', ['m2', 'm3']],
        ['together', ['m1', 'm2', 'm3']],
      ] as const) {
        const values = (name: string): number[] => members.map((member) => valueAt(run, `${step} ${member}`, name));
        assert.equal(values('etcd_server_is_leader').filter((value) => value === 1).length, 1, `${run.kind} ${step}`);
        assert.ok(values('etcd_server_has_leader').every((value) => value === 1));
      }
    }
  });

  it('traffic with peers is counted, and peers that went', () => {
    for (const run of [etcd, keelson]) {
      for (const peer of ['m2', 'm3']) {
        const grows = (name: string): void => {
          const used = valueAt(run, 'used m1', name);
          assert.ok(used > 0 && valueAt(run, 'removed m1', name) > used, `${run.kind} ${name}`);
        };
        grows(`etcd_network_peer_sent_bytes_total{To="ID-${peer}"}`);
        grows(`etcd_network_peer_received_bytes_total{From="ID-${peer}"}`);
        grows(`etcd_network_peer_round_trip_time_seconds_count{To="ID-${peer}"}`);
      }
      const disconnected = (peer: string): string =>
        `etcd_network_disconnected_peers_total{Local="ID-m1",Remote="ID-${peer}"}`;
      assert.equal(valueAt(run, 'follower back m1', disconnected('m3')), 1, run.kind);
      assert.ok(valueAt(run, 'removed m1', disconnected('m4')) >= 1, run.kind);
      assert.ok(valueAt(run, 'follower lost m1', 'etcd_network_peer_sent_failures_total{To="ID-m3"}') > 0, run.kind);
      const applied = valueAt(run, 'used m1', 'etcd_server_proposals_applied_total');
      assert.equal(applied, valueAt(run, 'used m1', 'etcd_server_proposals_committed_total'), run.kind);
    }
  });
});

/** What changes from run to run: times, sizes, indexes; and the order of Go's maps. */
function steady(text: string): string {
  return (
    text
      .replaceAll(/"Now":"[^"]*"/g, '"Now"')
      .replaceAll(/took"?( = |:)"?[0-9.]+[µmn]?s"?/g, 'took')
      .replaceAll(
        /"(cluster_id|dbSize|dbSizeInUse|raftIndex|raftAppliedIndex|raft_term|raftTerm|revision)":\d+/g,
        '"$1"',
      )
      .replaceAll(/"(term|commit|applied|match|next)":\d+/g, '"$1"')
      // A follower may hear of the leader before it is asked for its vote.
      .replace(/"vote":"[^"]*"(?=.*"StateFollower")/, '"vote"')
      .replaceAll(/"ts":"[^"]*"|0x[0-9a-f]+|127\.0\.0\.1:\d+/g, '')
      .replace('stream terminated by RST_STREAM with error code: CANCEL', 'context deadline exceeded')
  );
}

/** The parts of a text whose order is that of a Go map. */
const unordered = (text: string): string =>
  steady(text)
    .split(/\n|(?<=\}),(?=")|(?<=\}),(?=\{)|(?<=\[)(?=\{)|(?<=progress":\{)|(?<=\})(?=[\]}])/)
    .map((part) => part.replace(/^\d{3} (?=\[)/, ''))
    .sort()
    .join('\n');

/** A read that waits for a leader: etcd gives up seven to fourteen seconds later, keelson seven. */
const waitsForLeader = /linearizable_read|^(client|metrics) \/readyz/;

const textsOf = (
  theirs: Readonly<Record<string, string>>,
  ours: Readonly<Record<string, string>>,
  isSkipped: (name: string) => boolean = () => false,
): string[] =>
  Object.keys(theirs)
    .filter((name) => !isSkipped(name) && unordered(theirs[name]!) !== unordered(ours[name] ?? ''))
    .map((name) => `${name}: etcd ${theirs[name]}, keelson ${ours[name]}`);

describe('endpoints of a cluster', () => {
  it('health, readiness, version, variables: on every listener, in every role', () => {
    const found = differences((where, theirs, ours) =>
      textsOf(theirs.http, ours.http, (name) => {
        if (name.endsWith('/debug/vars') && name.startsWith('client')) return electedSteps.includes(stepOf(where));
        return stepOf(where) === 'alone' && waitsForLeader.test(name);
      }),
    );
    assert.deepEqual(found, []);
  });

  it('a learner is not ready, and a member alone neither', () => {
    const learner = keelson.sights.get('learner m4')!.http;
    assert.match(learner['client /readyz']!, /^503 .*\[-\]non_learner failed: not supported for learner/s);
    assert.match(learner['client /livez']!, /^200/);
    const [, alone] = [...keelson.sights].find(([where]) => where.startsWith('alone'))!;
    assert.match(alone.http['client /readyz']!, /^503 .*linearizable_read failed: etcdserver: request timed out/s);
    assert.match(alone.http['client /health']!, /^503 .*"health":"false"/s);
    assert.match(alone.http['client /livez']!, /^200/);
  });

  it('calls are answered or refused with the same words', () => {
    // Without a leader etcd's changes of the membership have no time-out of their own; keelson's have that of any other request.
    const found = differences((where, theirs, ours) =>
      textsOf(theirs.calls, ours.calls, (name) => stepOf(where) === 'alone' && name.endsWith('/MemberRemove')),
    );
    assert.deepEqual(found, []);
    const learner = keelson.sights.get('learner m4')!.calls;
    assert.equal(learner['etcdserverpb.KV/Put'], '9 etcdserver: rpc not supported for learner');
    assert.equal(learner['etcdserverpb.KV/Range serializable'], 'ok');
  });

  it('etcdctl endpoint status and health', () => {
    const found = differences((where, theirs, ours) =>
      textsOf(theirs.ctl, ours.ctl, (name) => name.includes('status') && electedSteps.includes(stepOf(where))),
    );
    assert.deepEqual(found, []);
  });

  it('streams that want a leader end with it', () => {
    assert.deepEqual(keelson.ended, { Watch: '14 etcdserver: no leader', LeaseKeepAlive: '14 etcdserver: no leader' });
    assert.deepEqual(etcd.ended, keelson.ended);
  });
});

/** By run of a member: messages that scripts and people wait for, and keys that keelson does not have. */
const messages: readonly (readonly [run: string, texts: readonly string[]])[] = [
  [
    'm1 0',
    [
      'Initialize and start etcd server',
      'restore consistentIndex',
      'starting local member',
      'starting etcd server',
      'starting initial election tick advance',
      'now serving peer/client/metrics',
      'published local member to cluster through raft',
      'serving client traffic insecurely; this is strongly discouraged!',
      'added member',
      'starting remote peer',
      'started remote peer',
      'added remote peer',
      'peer became active',
      'established TCP streaming connection with remote peer',
      'enabled capabilities for version',
      'ready to serve client requests',
      'leadership transfer starting',
      'leadership transfer finished',
      'peer became inactive (message send to peer failed)',
      'lost TCP streaming connection with remote peer',
      'sending merged snapshot',
      'sending database snapshot',
      'sent database snapshot',
      'sent merged snapshot',
      'promote member',
      'removed member',
      'stopped remote peer',
      'removed remote peer',
      'applied a configuration change through raft',
    ],
  ],
  [
    'm3 1',
    [
      'server has already been initialized',
      'recovered v3 backend',
      'recovered/added member from store',
      'set cluster version from store',
      'enabled capabilities for version',
      'restarting local member',
      'starting etcd server',
      'ready to serve client requests',
    ],
  ],
  [
    'm4 0',
    [
      'receiving database snapshot',
      'saved database snapshot to disk',
      'received and saved database snapshot',
      'applied incoming Raft snapshot',
      'applying snapshot',
      'recovered/added member from store',
      'set cluster version from store',
      'removing old peers from network',
      'removed old peers from network',
      'adding peers from new cluster configuration',
      'added peers from new cluster configuration',
      'applied snapshot',
      'server error',
      'data-dir used by this member must be removed',
    ],
  ],
];
/** By whom is chance. */
const alsoSaid = [
  'initialized peer connections; fast-forwarding election ticks',
  'prober detected unhealthy status',
  'serving /health false; no leader',
  'timed out waiting for read index response (local node might have slow network)',
  'received signal; shutting down',
  'closing etcd server',
  'stopping serving peer traffic',
  'stopped serving peer traffic',
  'closed etcd server',
];
type Line = Readonly<Record<string, unknown>>;

function linesOf({ logs }: Scenario, run: string): readonly Line[] {
  const [member, index] = run.split(' ');
  return logs.get(member!)?.[Number(index)] ?? [];
}

const allLines = ({ logs }: Scenario): Line[] => [...logs.values()].flat(2);

function compareMessage(message: string, theirs: readonly Line[], ours: readonly Line[]): string[] {
  const [etcdLines, keelsonLines] = [theirs, ours].map((lines) => lines.filter(({ msg }) => msg === message));
  if (etcdLines!.length === 0) return [`etcd never says "${message}"`];
  if (keelsonLines!.length === 0) return [`keelson never says "${message}"`];
  // Some are said by readers and by writers, in any order.
  const said = new Set(keelsonLines!.flatMap((line) => Object.keys(line)));
  const absent = new Set(etcdLines!.flatMap((line) => Object.keys(line)).filter((name) => !said.has(name)));
  absent.delete('logger');
  const wrong = [...absent].map((name) => `"${message}" without ${name}`);
  const level = etcdLines![0]!['level'];
  return keelsonLines![0]!['level'] === level ? wrong : [...wrong, `"${message}" is not ${level}`];
}

describe('log of a cluster', () => {
  it('what etcd says of peers, leaders, members and snapshots, with its keys', () => {
    const wrong = messages.flatMap(([run, texts]) =>
      texts.flatMap((text) =>
        compareMessage(text, linesOf(etcd, run), linesOf(keelson, run)).map((line) => `${run}: ${line}`),
      ),
    );
    for (const text of alsoSaid) wrong.push(...compareMessage(text, allLines(etcd), allLines(keelson)));
    assert.deepEqual(wrong, []);
  });

  it('all that raft says, under its name, at its level', () => {
    const [theirs, ours] = [etcd, keelson].map((run) => new Set(allLines(run).filter(isOfRaft).map(raftForm)));
    const isChance = (form: string): boolean => byChance.some((pattern) => pattern.test(form));
    for (const form of brought) assert.ok(theirs!.has(form), `etcd does not say "${form}"`);
    const notOurs = [...theirs!].filter((form) => !ours!.has(form) && !isChance(form) && !onlyEtcds.test(form));
    assert.deepEqual(notOurs, []);
    const notTheirs = [...ours!].filter((form) => !theirs!.has(form) && !isChance(form));
    assert.deepEqual(notTheirs, []);
  });

  it('how an heir takes over, line by line', () => {
    // Up to the votes, which come in any order; those asked are in the order of their ids.
    const told = (run: Scenario): string[] => {
      const lines = linesOf(run, 'm2 0')
        .filter(isOfRaft)
        .map(({ msg }) =>
          String(msg)
            .replaceAll(/(term|index)(:?) \d+/g, '$1$2')
            .replace(/to ID-m[13]/, 'to ID'),
        );
      const start = lines.findIndex((line) => line.includes('received MsgTimeoutNow from ID-m1'));
      return lines.slice(start, start + 5);
    };
    assert.match(told(etcd)[4]!, /sent MsgVote request to ID /);
    assert.deepEqual(told(keelson), told(etcd));
  });

  it('changes of the leader, in the words of raft', () => {
    for (const run of [etcd, keelson]) {
      const lines = linesOf(run, 'm1 0').filter(({ msg }) => String(msg).startsWith('raft.node: '));
      const changes = lines.map(({ msg }) => leaderChange.exec(String(msg)));
      assert.ok(!changes.includes(null), JSON.stringify(lines));
      // Who led first is chance; and whoever hears of the new leader before it is asked for its vote was not without one.
      const leaders = changes.map((change) => change![1]).filter((leader) => leader !== undefined);
      assert.deepEqual(leaders.slice(-2), ['ID-m2', 'ID-m1'], run.kind);
    }
  });

  it('no error but what was wrong with requests and roles', () => {
    const expected = ['Validation on configuration change failed', 'Health check error'];
    const errors = allLines(keelson).filter(
      ({ level, msg }) => !['debug', 'info', 'warn'].includes(String(level)) && !expected.includes(String(msg)),
    );
    assert.deepEqual(errors, []);
  });
});

const leaderChange =
  /^raft\.node: ID-m1 (?:lost leader ID-m\d|(?:elected leader|changed leader from ID-m\d to) (ID-m\d)) at term \d+$/;

const isOfRaft = ({ logger, level }: Line): boolean => logger === 'raft' && level !== 'debug';

/** Level and words, without the numbers. */
const raftForm = ({ level, msg }: Line): string =>
  `${level} ${String(msg)
    .replace(/peers: \[.*?\]/, 'peers')
    .replaceAll(/ID-m\d|(?<=vote: )\w+/g, 'ID')
    .replaceAll(/ID( ID)+/g, 'IDs')
    .replaceAll(/\d+/g, 'N')}`;

/** What the script brings about, whoever is elected. */
const brought: readonly string[] = [
  'info newRaft ID [peers, term: N, commit: N, applied: N, lastindex: N, lastterm: N]',
  'info ID switched to configuration voters=()',
  'info ID switched to configuration voters=(IDs)',
  'info ID switched to configuration voters=(IDs) learners=(ID)',
  'info ID became follower at term N',
  'info ID is starting a new election at term N',
  'info ID became pre-candidate at term N',
  'info ID [logterm: N, index: N] sent MsgPreVote request to ID at term N',
  'info ID [logterm: N, index: N, vote: ID] cast MsgPreVote for ID [logterm: N, index: N] at term N',
  'info ID received MsgPreVoteResp from ID at term N',
  'info ID has received N MsgPreVoteResp votes and N vote rejections',
  'info ID became candidate at term N',
  'info ID [logterm: N, index: N] sent MsgVote request to ID at term N',
  'info ID [term: N] received a MsgVote message with higher term from ID [term: N]',
  'info ID [logterm: N, index: N, vote: ID] cast MsgVote for ID [logterm: N, index: N] at term N',
  'info ID received MsgVoteResp from ID at term N',
  'info ID has received N MsgVoteResp votes and N vote rejections',
  'info ID became leader at term N',
  'info ID [term N] starts to transfer leadership to ID',
  'info ID [term N] received MsgTimeoutNow from ID and starts an election to get leadership.',
  'info ID [commit: N, lastindex: N, lastterm: N] restored snapshot [index: N, term: N]',
  'info ID [commit: N] restored snapshot [index: N, term: N]',
  'info raft.node: ID elected leader ID at term N',
  'info raft.node: ID lost leader ID at term N',
];
/** Who was first, and what was still on its way. */
const byChance: readonly RegExp[] = [
  /^info ID \[term: N\] (received|ignored) a Msg\w+ message with (higher|lower) term from ID \[term: N\]$/,
  /^info ID \[logterm: N, index: N, vote: ID\] (rejected|ignored) Msg(Pre)?Vote from ID /,
  /^info ID received Msg(Pre)?VoteResp rejection from ID at term N$/,
  /^info ID sends MsgTimeoutNow to ID immediately as ID already has up-to-date log$/,
  /^info ID sent MsgTimeoutNow to ID after received MsgAppResp$/,
  /^info ID no leader at term N; dropping (index reading msg|proposal)$/,
  /^info found conflict at index N \[existing term: N, conflicting term: N\]$/,
  /^info raft\.node: ID changed leader from ID to ID at term N$/,
  /^warn ID stepped down to follower since quorum is not active$/,
  /^warn ID cannot campaign at term N since there are still pending configuration changes to apply$/,
];
/** The insides of its log (docs/differences.md). */
const onlyEtcds = /^info (log \[.*\] starts to restore snapshot|(truncate|replace) the unstable entries )/;
