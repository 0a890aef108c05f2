// Goal: clients that name a user, and scripts that ask for authentication's state, work where it was never enabled, as with an etcd.
// Method: real etcdctl with the same command lines on a real etcd and on keelson; standard output, exit code and the gRPC error
// are compared. What needs users and roles (#5) must fail, not be accepted.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { freePorts } from '../src/testing/free-port.ts';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { Program, repository, scratchFolder } from './program.ts';

interface Result {
  readonly code: number;
  readonly stdout: string;
  /** The code and message of the gRPC error that etcdctl was told, or nothing. */
  readonly grpcError: string;
}

const scratch = scratchFolder('auth');
const programs: Program[] = [];
const endpoints: string[] = [];

before(async () => {
  for (const [name, file] of [
    ['etcd', join(peerBinaries, 'etcd')],
    ['keelson', join(repository, 'bin/keelson')],
  ] as const) {
    const [clientPort, peerPort] = await freePorts(2);
    const client = `http://127.0.0.1:${clientPort}`;
    const args = [
      '--name=m1',
      `--data-dir=${join(scratch.folder, name)}`,
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=http://127.0.0.1:${peerPort}`,
      // Of both: the same cluster and member.
      '--initial-advertise-peer-urls=http://127.0.0.1:23801',
      '--initial-cluster=m1=http://127.0.0.1:23801',
    ];
    const program = new Program({ name, file, args, folder: scratch.folder });
    programs.push(program);
    endpoints.push(client);
    await program.says();
  }
});

after(async () => {
  for (const program of programs) await program.stop();
  scratch.remove();
});

function etcdctl(endpoint: string, args: readonly string[]): Promise<Result> {
  return new Promise((resolve) => {
    const all = ['--endpoints', endpoint, '--command-timeout', '10s', ...args];
    const child = execFile(join(peerBinaries, 'etcdctl'), all, { env: {} }, (_error, stdout, stderr) => {
      const told = /rpc error: (code = \w+ desc = [^"]*)/.exec(stderr);
      resolve({ code: child.exitCode ?? -1, stdout, grpcError: told?.[1]?.trim() ?? '' });
    });
    child.stdin?.end();
  });
}

async function both(line: string): Promise<[etcd: Result, keelson: Result]> {
  const words = line.split(' ');
  const [etcd, keelson] = await Promise.all(endpoints.map((endpoint) => etcdctl(endpoint, words)));
  return [etcd!, keelson!];
}

test('a user and a password are tolerated, auth status and auth disable answered, as by etcd', async () => {
  const expected: readonly [string, number, RegExp][] = [
    ['put a b', 0, /^OK/],
    ['--user u:p get a', 0, /^a\nb/],
    ['--user u:p put a c', 0, /^OK/],
    ['--user u --password p get a -w json', 0, /"mod_revision":3/],
    ['--user u:p del a', 0, /^1/],
    ['auth status', 0, /AuthRevision: 1/],
    ['auth status -w json', 0, /"authRevision":1/],
    ['--user u:p auth status', 0, /Status: false/],
    ['auth disable', 0, /Authentication Disabled/],
    ['auth disable -w json', 0, /Authentication Disabled/],
  ];
  for (const [line, code, stdout] of expected) {
    const [etcd, keelson] = await both(line);
    assert.deepEqual(keelson, etcd, line);
    assert.equal(etcd.code, code, line);
    assert.match(etcd.stdout, stdout, line);
    const isNamed = line.startsWith('--user');
    const told = isNamed ? 'code = FailedPrecondition desc = etcdserver: authentication is not enabled' : '';
    assert.equal(etcd.grpcError, told, line);
  }
});

test('what would protect the data fails, and says that it is not there', async () => {
  const lines = ['user add root:root', 'user list', 'user get root', 'user grant-role root root', 'user delete root'];
  lines.push('role add r', 'role list', 'role get r', 'role delete r', 'role grant-permission r read k', 'auth enable');
  for (const line of lines) {
    const [, keelson] = await both(line);
    assert.equal(keelson.code, 1, line);
    assert.equal(keelson.stdout, '', line);
    assert.match(keelson.grpcError, /^code = Unimplemented desc = keelson: users, roles and authentication/, line);
  }
  const status = await etcdctl(endpoints[1]!, ['auth', 'status']);
  assert.match(status.stdout, /Status: false\nAuthRevision: 1/);
});

test('a snapshot of an etcd with authentication enabled is not served to everybody', async () => {
  const [etcd] = endpoints;
  for (const line of ['user add root:secret', 'user grant-role root root', 'auth enable']) {
    assert.equal((await etcdctl(etcd!, line.split(' '))).code, 0, line);
  }
  const snapshot = join(scratch.folder, 'snapshot.db');
  assert.equal((await etcdctl(etcd!, ['--user', 'root:secret', 'snapshot', 'save', snapshot])).code, 0);
  const dataDir = join(scratch.folder, 'restored');
  const restore = ['snapshot', 'restore', snapshot, '--data-dir', dataDir];
  const restored = new Program({
    name: 'restore',
    file: join(repository, 'bin/keelsonutl'),
    args: restore,
    folder: scratch.folder,
  });
  assert.equal((await restored.exited).code, 0, restored.log());
  const [clientPort, peerPort] = await freePorts(2);
  const client = `http://127.0.0.1:${clientPort}`;
  const program = new Program({
    name: 'protected',
    file: join(repository, 'bin/keelson'),
    args: [
      `--data-dir=${dataDir}`,
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=http://127.0.0.1:${peerPort}`,
    ],
    folder: scratch.folder,
  });
  programs.push(program);
  assert.deepEqual(await program.exited, { code: 14, signal: null }, program.log());
  assert.match(program.log(), /has authentication enabled, which this version of keelson cannot enforce yet/);
});
