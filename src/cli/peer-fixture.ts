// For the peer tests of the command line: real etcds that are alike to the last id, and programs run on them. Two members with
// the same name, token and advertised URLs have the same cluster and member ids and go through the same raft indexes, so that the
// same command lines must print the same bytes on both.

import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from '../testing/free-port.ts';
import { peerBinary } from '../testing/peer-programs.ts';

export const keelsonctl: string = fileURLToPath(new URL('../../bin/keelsonctl', import.meta.url));
export const keelsonutl: string = fileURLToPath(new URL('../../bin/keelsonutl', import.meta.url));

export interface Member {
  readonly endpoint: string;
  readonly process: ChildProcess;
}

export interface PeerMember extends Member {
  /** http://host:port of its peer listener. */
  readonly peerUrl: string;
}

/** Never dialed: a lone member does not talk to itself. */
const peerUrl = 'http://127.0.0.1:23801';

export async function startEtcd(dataDir: string, ...extra: string[]): Promise<PeerMember> {
  const clientUrl = `http://127.0.0.1:${await freePort()}`;
  const listenPeer = `http://127.0.0.1:${await freePort()}`;
  // PEER_SERVER=bin/keelson: the same test with the server of this repository.
  const child = spawn(
    process.env['PEER_SERVER'] ?? peerBinary('etcd'),
    [
      `--data-dir=${dataDir}`,
      `--listen-client-urls=${clientUrl}`,
      '--advertise-client-urls=http://127.0.0.1:23791',
      `--listen-peer-urls=${listenPeer}`,
      `--initial-advertise-peer-urls=${peerUrl}`,
      `--initial-cluster=default=${peerUrl}`,
      ...extra,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let log = '';
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (chunk: Buffer) => {
      log += chunk.toString();
      if (log.includes('ready to serve client requests')) resolve();
    });
    child.once('exit', (code) => reject(new Error(`etcd ended with ${code}: ${log}`)));
  });
  const endpoint = clientUrl.slice('http://'.length);
  await untilVersioned(endpoint);
  return { endpoint, peerUrl: listenPeer, process: child };
}

/** The cluster version is set a moment after the start, by an entry of its own. */
async function untilVersioned(endpoint: string): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const response = await fetch(`http://${endpoint}/version`);
    const version = (await response.json()) as { storage?: string };
    if (version.storage?.startsWith('3.7') === true) return;
    await sleep(50);
  }
  throw new Error('etcd has not set its storage version');
}

export interface Result {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface RunOptions {
  readonly stdin?: string | Buffer | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Ended by SIGTERM after this long (a watch); the code is then null. */
  readonly endAfterMs?: number | undefined;
}

export async function runProgram(file: string, words: readonly string[], options: RunOptions = {}): Promise<Result> {
  const child = spawn(file, words, { env: { PATH: process.env['PATH'] ?? '', ...options.env } });
  const stdout: Buffer[] = [];
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  // A program that does not read its input ends before it is written.
  child.stdin.on('error', () => {});
  if (options.endAfterMs === undefined) child.stdin.end(options.stdin ?? '');
  else if (options.stdin !== undefined) child.stdin.write(options.stdin);
  const timer = setTimeout(() => child.kill('SIGTERM'), options.endAfterMs ?? 20_000);
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  clearTimeout(timer);
  return { code, stdout: Buffer.concat(stdout), stderr };
}
