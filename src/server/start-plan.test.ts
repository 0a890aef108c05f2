// Goal: a start is what etcd would make of the same flags and the same answers of peers, and is refused in its words. Method: peers,
// names and time are the test's; ids are those of a real etcd cluster (config/cluster-id.peer-test.ts has the formula beside etcd's).
// A real name server of a few lines answers for SRV records.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { FatalError } from '../base/fatal.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import { type Names, systemNames } from '../io/names.ts';
import type { PeerRequests } from '../peer/peer-transport.ts';
import { encodeMember } from '../snapshot/schema.ts';
import { Logger } from '../telemetry/logger.ts';
import { configOf } from '../testing/config-fixture.ts';
import { planStart, type StartOptions, type StartPlan } from './start-plan.ts';

const folder = mkdtempSync(join(tmpdir(), 'keelson-start-plan-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** What etcd 3.7.1 logs when it starts with `three` and the token tkn. */
const ETCD_IDS = {
  cluster: 'b7d3aeee6f77f03c',
  members: [
    ['938e7772cd2277e3', 'a', 'http://10.0.0.1:2380'],
    ['a8541d93194c0035', 'b', 'http://10.0.0.2:2380'],
    ['f0f43b40119c769e', 'c', 'http://10.0.0.3:2380'],
  ],
} as const;

/** What is answered at a URL: a body with its cluster id, or nothing at all. */
type Answers = Readonly<Record<string, string>>;

const clusterHeader = 'deadbeef01020304';

function peers(answers: Answers, asked: string[] = []): PeerRequests {
  return {
    request: (url, { path }, done) => {
      asked.push(url + path);
      const body = answers[url + path];
      const headers = { 'x-etcd-cluster-id': answers['cluster-id'] ?? clusterHeader };
      setImmediate(() => {
        if (body === undefined) done(new Error(`nobody is at ${url}`), null);
        else done(null, { status: 200, headers, body: Buffer.from(body) });
      });
    },
  };
}

const deaf: Names = {
  address: (host) => Promise.reject(new Error(`lookup ${host}: no such host`)),
  services: (name) => Promise.reject(new Error(`lookup ${name}: no such host`)),
};

/** Time that runs when it is waited for. */
function hasteClock(): Clock {
  let nowMs = 0;
  return {
    ...systemClock,
    nowMs: () => nowMs,
    setTimer: (delayMs, callback) => {
      nowMs += delayMs;
      setImmediate(callback);
      return { dueMs: nowMs };
    },
  };
}

let lines: Record<string, unknown>[] = [];

async function plan(flags: readonly string[], options: Partial<StartOptions> = {}): Promise<StartPlan> {
  lines = [];
  const config = await configOf('--name=a', `--data-dir=${join(folder, 'none')}`, ...flags);
  const sink = { write: (line: string): void => void lines.push(JSON.parse(line)), flush: (): void => {} };
  const logger = new Logger({ level: 'debug', format: 'json', sink, now: () => 0 });
  return planStart({ config, logger, peerRequests: peers({}), names: deaf, clock: hasteClock(), ...options });
}

async function refusal(flags: readonly string[], options: Partial<StartOptions> = {}): Promise<string> {
  try {
    await plan(flags, options);
  } catch (error) {
    assert.ok(error instanceof FatalError, String(error));
    assert.equal(error.exitCode, 1);
    return error.message;
  }
  throw new Error(`it would start: ${flags.join(' ')}`);
}

const logged = (message: string): Record<string, unknown>[] => lines.filter(({ msg }) => msg === message);

const three = '--initial-cluster=a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380';
const advertised = '--initial-advertise-peer-urls=http://10.0.0.1:2380';
const existing = '--initial-cluster-state=existing';

function memberJson(id: bigint, url: string, more: { name?: string; clientUrls?: string[]; isLearner?: boolean } = {}) {
  const member = { id, peerUrls: [url], name: '', clientUrls: [], isLearner: false, ...more };
  return encodeMember(member).toString();
}

describe('a new cluster', () => {
  it('has all members by id, with the ids that etcd computes', async () => {
    const made = await plan([three, advertised, '--initial-cluster-token=tkn']);
    assert.ok(made.kind === 'new');
    assert.deepEqual(
      made.members.map(({ name, peerUrls, isLearner, clientUrls }) => [name, ...peerUrls, isLearner, clientUrls]),
      ETCD_IDS.members.map(([, name, url]) => [name, url, false, []]),
    );
    assert.deepEqual(
      made.members.map(({ id }) => id.toString(16)),
      ETCD_IDS.members.map(([id]) => id),
    );
    assert.equal(made.clusterId.toString(16), ETCD_IDS.cluster);
    assert.equal(made.memberId, made.members.find(({ name }) => name === 'a')!.id);
  });

  it('is refused when its flags contradict each other', async () => {
    assert.equal(
      await refusal(['--initial-cluster=x=http://127.0.0.1:2380']),
      `couldn't find local name "a" in the initial cluster configuration`,
    );
    assert.equal(
      await refusal(['--initial-cluster=a=http://127.0.0.1:1', '--initial-advertise-peer-urls=http://127.0.0.1:2'], {
        names: systemNames(),
      }),
      '--initial-cluster has a=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://127.0.0.1:2 ' +
        '(resolved urls: "http://127.0.0.1:2" != "http://127.0.0.1:1")',
    );
    assert.equal(
      await refusal([
        '--initial-cluster=a=http://10.0.0.1:1,b=http://10.0.0.1:1',
        '--initial-advertise-peer-urls=http://10.0.0.1:1',
      ]),
      'initial cluster a=http://10.0.0.1:1,b=http://10.0.0.1:1 has duplicate url',
    );
    assert.equal(
      await refusal(['--initial-cluster=a=bad']),
      'error setting up initial cluster: URL scheme must be http, https, unix, or unixs: bad',
    );
  });

  it('waits for names, for as long as etcd does', async () => {
    const flags = ['--initial-cluster=a=http://own.example:1', '--initial-advertise-peer-urls=http://10.0.0.9:1'];
    let tries = 0;
    const slow: Names = {
      ...deaf,
      address: async (host) => {
        if (host === 'own.example' && ++tries < 5) throw new Error('lookup own.example: no such host');
        return '10.0.0.9';
      },
    };
    assert.equal((await plan(flags, { names: slow })).kind, 'new');
    assert.equal(logged('failed to resolve URL Host').length, 4);
    const never: Names = { ...deaf, address: async (host) => (host === 'own.example' ? deaf.address(host) : host) };
    assert.equal(
      await refusal(flags, { names: never }),
      '--initial-cluster has a=http://own.example:1 but missing from --initial-advertise-peer-urls=http://10.0.0.9:1 ' +
        '(failed to resolve "http://own.example:1" (lookup own.example: no such host))',
    );
    assert.equal(logged('failed to resolve URL Host').length, 29);
  });

  it('is refused to a member that has been in it, which its peers know by its client URLs', async () => {
    const id = BigInt(`0x${ETCD_IDS.members.find(([, name]) => name === 'a')![0]}`);
    const flags = [three, advertised, '--initial-cluster-token=tkn'];
    const known = `[${memberJson(id, 'http://10.0.0.1:2380', { clientUrls: ['http://x:1'] })}]`;
    const asked: string[] = [];
    assert.equal(
      await refusal(flags, { peerRequests: peers({ 'http://10.0.0.3:2380/members': known }, asked) }),
      `member ${id.toString(16)} has already been bootstrapped`,
    );
    assert.deepEqual(asked, ['http://10.0.0.2:2380/members', 'http://10.0.0.3:2380/members']);
    const unpublished = `[${memberJson(id, 'http://10.0.0.1:2380')}]`;
    const peerRequests = peers({ 'http://10.0.0.2:2380/members': unpublished, 'http://10.0.0.3:2380/members': known });
    assert.equal((await plan(flags, { peerRequests })).kind, 'new', 'the first that answers is believed');
    for (const nonsense of ['no json', '{}', '[]', '[{"id":"x"}]', '[1]']) {
      assert.equal(
        (await plan(flags, { peerRequests: peers({ 'http://10.0.0.2:2380/members': nonsense }) })).kind,
        'new',
      );
    }
  });
});

describe('a cluster that runs', () => {
  const remotes = [
    memberJson(7n, 'http://10.0.0.2:2380', { name: 'b', clientUrls: ['http://10.0.0.2:2379'] }),
    memberJson(0xffff_ffff_ffff_fff1n, 'http://10.0.0.1:2380'),
    memberJson(9n, 'http://10.0.0.3:2380', { name: 'other', isLearner: true }),
  ];
  const version = JSON.stringify({ etcdserver: '3.7.1', etcdcluster: '3.7.0' });
  const running: Answers = {
    'http://10.0.0.2:2380/members': `[${remotes.join(',')}]\n`,
    'http://10.0.0.2:2380/version': version,
    'http://10.0.0.2:2380/downgrade/enabled': 'false',
  };
  const flags = [three, advertised, existing];
  const withAnswers = (more: Answers): Partial<StartOptions> => ({ peerRequests: peers({ ...running, ...more }) });

  it('is joined under the ids that it has', async () => {
    const joined = await plan(flags, withAnswers({}));
    assert.ok(joined.kind === 'join');
    assert.equal(joined.clusterId.toString(16), clusterHeader);
    assert.equal(joined.memberId, 0xffff_ffff_ffff_fff1n);
    assert.deepEqual(
      joined.remotes.map(({ id, name, isLearner }) => [id, name, isLearner]),
      [
        [7n, 'b', false],
        [9n, 'other', true],
        [0xffff_ffff_ffff_fff1n, '', false],
      ],
    );
    assert.deepEqual(logged('failed to get version')[0]!['remote-member-id'], '9', 'one that is down is passed over');
  });

  it('does not look at --initial-advertise-peer-urls, and finds addresses behind names', async () => {
    const named = three.replaceAll('10.0.0.', 'host-');
    const names: Names = { ...deaf, address: async (host) => host.replace('host-', '10.0.0.') };
    const joined = await plan([named, existing], {
      names,
      peerRequests: peers({ ...running, 'http://host-3:2380/members': running['http://10.0.0.2:2380/members']! }),
    });
    assert.ok(joined.kind === 'join');
    assert.equal(joined.memberId, 0xffff_ffff_ffff_fff1n);
  });

  it('is not joined when nobody answers or the answer is no cluster', async () => {
    const none = 'cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs';
    assert.equal(await refusal(flags), none);
    assert.deepEqual(
      logged('failed to get cluster response').map(({ address }) => address),
      ['http://10.0.0.2:2380/members', 'http://10.0.0.3:2380/members'],
    );
    assert.equal(await refusal(flags, withAnswers({ 'http://10.0.0.2:2380/members': '{}' })), none);
    assert.equal(logged('failed to unmarshal cluster response').length, 1);
    assert.equal(await refusal(flags, withAnswers({ 'cluster-id': 'xyz' })), none);
    assert.equal(logged('failed to parse cluster ID').length, 1);
    assert.equal(
      await refusal(flags, withAnswers({ 'http://10.0.0.2:2380/members': '[]' })),
      'cannot fetch cluster info from peer urls: failed to get raft cluster member(s) from the given URLs',
    );
    assert.equal(await refusal([existing]), none, 'alone there is nobody to ask');
  });

  it('is not joined by one that it does not know', async () => {
    const two = withAnswers({ 'http://10.0.0.2:2380/members': `[${remotes.slice(0, 2).join(',')}]` });
    assert.equal(
      await refusal(flags, two),
      'error validating peerURLs {ClusterID:deadbeef01020304 Members:[' +
        '&{ID:7 RaftAttributes:{PeerURLs:[http://10.0.0.2:2380] IsLearner:false} Attributes:{Name:b ClientURLs:[http://10.0.0.2:2379]}} ' +
        '&{ID:fffffffffffffff1 RaftAttributes:{PeerURLs:[http://10.0.0.1:2380] IsLearner:false} Attributes:{Name: ClientURLs:[]}}' +
        '] RemovedMemberIDs:[]}: member count is unequal',
    );
    const stranger = memberJson(9n, 'http://10.0.0.4:2380');
    const other = withAnswers({ 'http://10.0.0.2:2380/members': `[${[...remotes.slice(0, 2), stranger].join(',')}]` });
    assert.match(
      await refusal(flags, { ...other, names: { ...deaf, address: async (host) => host } }),
      /RemovedMemberIDs:\[\]}: PeerURLs: no match found for existing member \(9, \[http:\/\/10\.0\.0\.4:2380\]\), last resolver error \(resolved urls: "http:\/\/10\.0\.0\.4:2380" != "http:\/\/10\.0\.0\.3:2380"\)$/,
    );
    const noUrl = withAnswers({
      'http://10.0.0.2:2380/members': `[${[...remotes.slice(0, 2), memberJson(9n, 'x')].join(',')}]`,
    });
    assert.match(await refusal(flags, noUrl), /failed to parse string to URL: "x"$/);
    assert.equal(
      await refusal(['--initial-cluster=b=http://10.0.0.2:2380', existing]),
      `couldn't find local name "a" in the initial cluster configuration`,
    );
    assert.equal(
      await refusal(['--initial-cluster=a=http://10.0.0.2:2380,b=http://10.0.0.2:2380', existing]),
      'initial cluster a=http://10.0.0.2:2380,b=http://10.0.0.2:2380 has duplicate url',
    );
  });

  it('is not joined when its version is another', async () => {
    const incompatible = 'incompatible with current running cluster';
    const cluster = (etcdcluster: string): Partial<StartOptions> =>
      withAnswers({ 'http://10.0.0.2:2380/version': JSON.stringify({ etcdcluster }) });
    assert.equal(await refusal(flags, cluster('3.8.0')), incompatible);
    const [high] = logged('cluster version of remote member is not compatible; too high');
    assert.equal(high!['maximum-cluster-version-supported'], '3.7.0');
    assert.equal(await refusal(flags, cluster('2.3.0')), incompatible);
    assert.equal(logged('cluster version of remote member is not compatible; too low').length, 1);
    assert.equal(await refusal(flags, cluster('not_decided')), incompatible, 'nobody knows the version');
    assert.equal(logged('failed to parse cluster version of remote member').length, 1);
    assert.equal((await plan(flags, cluster('3.6.0'))).kind, 'join');
    assert.equal((await plan(flags, cluster('3.0.0'))).kind, 'join', 'a young cluster, which has no version yet');
    const down = withAnswers({ 'http://10.0.0.2:2380/downgrade/enabled': 'true' });
    assert.equal(await refusal(flags, down), incompatible, 'in a downgrade from 3.8 only');
  });

  it('is not joined when that would leave out a minor version', async () => {
    const old = withAnswers({ 'http://10.0.0.2:2380/version': '{"etcdserver":"3.5.9","etcdcluster":"3.5.0"}' });
    assert.equal(
      await refusal(flags, old),
      'incompatible with current running cluster: ' +
        'an upgrade must not skip a minor version: the cluster is at 3.5, this server is 3.7',
    );
    const [low] = logged('cluster version of remote member is not compatible; too low');
    assert.equal(low!['remote-member-cluster-version'], '3.5.0');
    assert.equal(low!['minimum-cluster-version-supported'], '3.6.0');
  });

  it('is not joined with more learners than --max-learners', async () => {
    assert.equal(
      await refusal([...flags, '--max-learners=0'], withAnswers({})),
      'membership: too many learner members in cluster',
    );
  });
});

describe('a data directory', () => {
  it('with a log is gone on with, whatever the flags; the log that a first start left empty is none', async () => {
    const dataDir = join(folder, 'data');
    mkdirSync(join(dataDir, 'member/wal'), { recursive: true });
    const flags = [`--data-dir=${dataDir}`, '--initial-cluster=x=http://127.0.0.1:1'];
    assert.match(await refusal(flags), /couldn't find local name/);
    writeFileSync(join(dataDir, 'member/wal/0000000000000001-0000000000000001.wal'), 'damaged: openMember says so');
    assert.equal((await plan(flags)).kind, 'restart');
    const found = ['--discovery-endpoints=127.0.0.1:1', '--discovery-token=t'];
    assert.equal((await plan([flags[0]!, ...found])).kind, 'restart');
    const ignored = 'discovery token is ignored since cluster already initialized; valid logs are found';
    assert.equal(logged(ignored).length, 1);
  });
});

describe('v3 discovery', () => {
  const flags = [advertised, '--discovery-endpoints=http://127.0.0.1:1', '--discovery-token=tkn'];
  const cluster = three.slice('--initial-cluster='.length);

  it('gives the cluster, under ids of its token', async () => {
    const asked: string[][] = [];
    const joinByDiscovery = async (...args: string[]): Promise<string> => {
      asked.push(args);
      return cluster;
    };
    const found = await plan(flags, { joinByDiscovery });
    assert.ok(found.kind === 'new');
    assert.equal(found.clusterId.toString(16), ETCD_IDS.cluster);
    assert.deepEqual(asked, [[found.memberId.toString(16), 'a=http://10.0.0.1:2380']]);
  });

  it('says why it has none', async () => {
    const full = async (): Promise<string> => {
      throw new Error('discovery: cluster is full');
    };
    assert.equal(
      await refusal(flags, { joinByDiscovery: full }),
      'failed to join discovery cluster (discovery: cluster is full)',
    );
    assert.equal(logged('failed to bootstrap; discovery token was already used')[0]!['discovery-token'], 'tkn');
    assert.equal(
      await refusal(flags, { joinByDiscovery: async () => 'a=x' }),
      'failed to join discovery cluster (discovery: invalid peer URL)',
    );
    assert.equal(
      await refusal(flags, { joinByDiscovery: async () => `${cluster},d=http://10.0.0.3:2380` }),
      `discovery cluster ${cluster},d=http://10.0.0.3:2380 has duplicate url`,
    );
    assert.match(
      await refusal(flags, { joinByDiscovery: async () => `${cluster},a=http://10.0.0.7:2380` }),
      /^discovery cluster .* does not have a=http:\/\/10\.0\.0\.1:2380$/,
    );
    assert.equal(
      await refusal([...flags, existing]),
      'discovery URL should not be set when joining existing initial cluster',
    );
  });
});

/** A name server on loopback that knows SRV records alone; names are those of services, values port and target. */
async function nameServer(records: Readonly<Record<string, readonly (readonly [number, string])[]>>): Promise<{
  readonly address: string;
  readonly close: () => void;
}> {
  const socket = createSocket('udp4');
  const label = (name: string): Buffer =>
    Buffer.concat([
      ...name.split('.').map((part) => Buffer.from([part.length, ...Buffer.from(part)])),
      Buffer.from([0]),
    ]);
  socket.on('message', (query, from) => {
    let end = 12;
    const parts: string[] = [];
    for (; query[end] !== 0; end += query[end]! + 1)
      parts.push(query.toString('latin1', end + 1, end + 1 + query[end]!));
    const question = query.subarray(12, end + 5);
    const found = records[parts.join('.')] ?? [];
    const head = Buffer.from(query.subarray(0, 12));
    // An answer; no such name where nothing is known.
    head.writeUInt16BE(found.length > 0 ? 0x8180 : 0x8183, 2);
    head.writeUInt16BE(found.length, 6);
    head.fill(0, 8, 12);
    const answers = found.map(([port, target], priority) => {
      const data = Buffer.concat([Buffer.from([0, priority, 0, 1, port >> 8, port & 255]), label(target)]);
      return Buffer.concat([Buffer.from([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, data.length]), data]);
    });
    socket.send(Buffer.concat([head, question, ...answers]), from.port, from.address);
  });
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  return { address: `127.0.0.1:${socket.address().port}`, close: () => socket.close() };
}

describe('DNS discovery', () => {
  const hosts: Readonly<Record<string, string>> = {
    'one.test': '10.0.0.1',
    'two.test': '10.0.0.2',
    '10.0.0.1': '10.0.0.1',
  };
  const answer = {
    '_etcd-server._tcp.example.test': [
      [2380, 'two.test'],
      [2380, 'one.test'],
    ],
    '_etcd-server-x._tcp.example.test': [[2380, 'two.test']],
    '_etcd-server-ssl-y._tcp.example.test': [[2380, 'one.test']],
  } as const;
  const namesAt = (address: string): Names => ({
    services: systemNames([address]).services,
    address: async (host) => hosts[host] ?? deaf.address(host),
  });

  it('gives the members, this one by its address', async () => {
    const server = await nameServer(answer);
    try {
      const names = namesAt(server.address);
      const flags = ['--discovery-srv=example.test', '--initial-cluster-token=t'];
      const found = await plan([...flags, '--initial-advertise-peer-urls=http://one.test:2380'], { names });
      assert.ok(found.kind === 'new');
      assert.deepEqual(found.members.map(({ name, peerUrls }) => `${name}=${peerUrls}`).sort(), [
        '0=http://two.test:2380',
        'a=http://one.test:2380',
      ]);
      assert.equal(logged('got bootstrap from DNS for etcd-server').length, 2);
      const [secure] = logged('get cluster for etcd-server-ssl SRV');
      assert.equal(
        secure!['error'],
        'error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.example.test: no such host',
      );
      // An address in place of the name that the records have: equal once it is asked for.
      assert.equal((await plan([...flags, advertised], { names })).kind, 'new');
    } finally {
      server.close();
    }
  });

  it('says why it gives none', async () => {
    const server = await nameServer(answer);
    try {
      const names = namesAt(server.address);
      const error = (service: string): string =>
        `error querying DNS SRV records for _${service} lookup _${service}._tcp.none.test: no such host`;
      assert.equal(
        await refusal(['--discovery-srv=none.test', advertised], { names }),
        `error setting up initial cluster: ${error('etcd-server-ssl')}\n${error('etcd-server')}`,
      );
      assert.equal(
        await refusal(['--discovery-srv=example.test', '--discovery-srv-name=x', advertised], { names }),
        'error setting up initial cluster: cannot find local etcd member "a" in SRV records',
      );
      assert.match(
        await refusal(['--discovery-srv=example.test', '--discovery-srv-name=y', advertised], { names }),
        /^error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl-y bootstrap at https:\/\/one\.test:2380 from DNS for etcd-server-ssl-y has scheme mismatch with expected peer http:\/\/10\.0\.0\.1:2380\n/,
      );
    } finally {
      server.close();
    }
  });
});
