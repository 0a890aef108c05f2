// Goal: whoever changes the membership cannot tell keelson from etcd: answers of the members' RPCs, refusals, and the peer listener's
// endpoints. Method: an etcd and a keelson with the same ids get the same etcdctl commands and HTTP requests; ids of added members,
// which are made of the second in which they were added, are masked.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { peerBinary } from '../testing/peer-programs.ts';
import { type PeerMember, runProgram, startEtcd } from './peer-fixture.ts';

const keelson = fileURLToPath(new URL('../../bin/keelson', import.meta.url));
const urls = (port: number): string => `--peer-urls=http://127.0.0.1:${port}`;

/** startEtcd() starts what PEER_SERVER says. */
async function start(folder: string, server: string): Promise<PeerMember> {
  const before = process.env['PEER_SERVER'];
  process.env['PEER_SERVER'] = server;
  try {
    return await startEtcd(join(folder, server.replaceAll('/', '_')));
  } finally {
    if (before === undefined) delete process.env['PEER_SERVER'];
    else process.env['PEER_SERVER'] = before;
  }
}

interface Ids {
  readonly own: string;
  readonly added: string;
}

async function idsOf({ endpoint }: PeerMember): Promise<Ids> {
  const words = ['--endpoints', endpoint, 'member', 'list', '--consistency=s'];
  const list = (await runProgram(peerBinary('etcdctl'), words)).stdout.toString();
  const idOf = (kind: string): string => new RegExp(`^([0-9a-f]+), ${kind},`, 'm').exec(list)?.[1] ?? '0';
  return { own: idOf('started'), added: idOf('unstarted') };
}

function masked(text: string, { added }: Ids): string {
  const decimal = BigInt(`0x${added}`).toString();
  // etcdctl pads the second id of a line.
  return text.replaceAll(added.padStart(16), 'ADDED').replaceAll(added, 'ADDED').replaceAll(decimal, 'ADDED');
}

async function command(member: PeerMember, line: string): Promise<string> {
  const before = await idsOf(member);
  const words = line.replace('$own', before.own).replace('$added', before.added).split(' ');
  const result = await runProgram(peerBinary('etcdctl'), ['--endpoints', member.endpoint, ...words]);
  const ids = before.added === '0' ? await idsOf(member) : before;
  const error = /^Error: .*$/m.exec(result.stderr)?.[0] ?? '';
  // The order in which etcdctl lists names follows ids.
  const sorted = (list: string): string => `ETCD_INITIAL_CLUSTER="${list.split(',').sort().join(',')}"`;
  const text = result.stdout.toString().replace(/ETCD_INITIAL_CLUSTER="([^"]*)"/, (_all, list: string) => sorted(list));
  return masked(`${result.code} ${text} ${error}`, ids);
}

async function http(member: PeerMember, line: string): Promise<string> {
  const ids = await idsOf(member);
  const [method, path] = line.replace('$own', decimalOf(ids.own)).replace('$added', decimalOf(ids.added)).split(' ');
  const answer = await fetch(member.peerUrl + path!, { method: method! });
  const header = (name: string): string => `${name}: ${answer.headers.get(name)}`;
  const headers = ['x-etcd-cluster-id', 'content-type', 'allow', 'x-content-type-options'].map(header).join(', ');
  const body = (await answer.text()).replace(/(?<=^\[)(.*)(?=\]\n$)/, (list) =>
    list
      .split(/,(?=\{)/)
      .sort()
      .join(','),
  );
  return masked(`${answer.status} ${headers} ${body}`, ids);
}

function decimalOf(hex: string): string {
  return BigInt(`0x${hex}`).toString();
}

test('changes of the membership, and what is refused', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'keelson-member-peer-'));
  const members = [await start(folder, peerBinary('etcd')), await start(folder, keelson)] as const;
  const compare = async (ask: (member: PeerMember, line: string) => Promise<string>, line: string): Promise<string> => {
    const [theirs, ours] = [await ask(members[0], line), await ask(members[1], line)];
    assert.equal(ours, theirs, line);
    return theirs;
  };
  try {
    for (const line of [
      'member list',
      'member remove $own',
      'member remove 1234',
      'member promote 1234',
      'member promote $own',
      `member update 1234 ${urls(3999)}`,
      `member add taken ${urls(23801)}`,
      `-w json member update $own ${urls(23801)}`,
      `member add l1 --learner ${urls(3997)}`,
      `member add l2 --learner ${urls(3996)}`,
      'member promote $added',
    ]) {
      await compare(command, line);
    }
    const ready = await compare(http, 'POST /members/promote/$added');
    assert.match(ready, /^412 .*in sync with leader\n$/s, 'the test has a learner');
    for (const line of [
      'POST /members/promote/$own',
      'POST /members/promote/1234',
      'POST /members/promote/x',
      'POST /members/promote/18446744073709551616',
      'GET /members/promote/1234',
      'GET /members',
      'POST /members',
      'GET /members/',
    ]) {
      await compare(http, line);
    }
    for (const line of [
      `member update $added ${urls(3995)},http://127.0.0.1:3994`,
      'member list -w json',
      'member remove $added',
    ]) {
      await compare(command, line);
    }
    // An id is made of the addresses and the second: the same in one second would be that of the removed one.
    await sleep(1100);
    await compare(command, `-w json member add b ${urls(3998)}`);
    // Two voters, one of them not started: nothing is committed any more.
    await compare(command, `member add c ${urls(3993)}`);
    await compare(command, 'member remove $own');
    await compare(command, `member add l3 --learner ${urls(3992)}`);
  } finally {
    for (const member of members) {
      const ended = new Promise((resolve) => member.process.once('exit', resolve));
      member.process.kill('SIGKILL');
      await ended;
    }
    rmSync(folder, { recursive: true, force: true });
  }
});
