// The real programs that peer tests hold keelson against: where test-e2e/peers/build.sh puts them, and the flags of a member on loopback,
// which etcd and keelson share.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

export const peerBinaries: string = join(process.env['KEELSON_CACHE'] ?? join(homedir(), '.cache', 'keelson'), 'bin');

export function peerBinary(name: string): string {
  const file = join(peerBinaries, name);
  assert.ok(existsSync(file), `${file} is missing: \`make test-peers\` builds it`);
  return file;
}

/** Runs one to its end; its standard output. Throws when it fails. */
export function runPeer(name: string, ...args: string[]): string {
  return execFileSync(peerBinary(name), args, {
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Of a member with these URLs, that is alone in its cluster. */
export function loneMemberFlags(name: string, dataDir: string, clientUrl: string, peerUrl: string): string[] {
  return [...memberFlags(name, dataDir, clientUrl, peerUrl), `--initial-cluster=${name}=${peerUrl}`];
}

/** What is the same in any cluster. */
export function memberFlags(name: string, dataDir: string, clientUrl: string, peerUrl: string): string[] {
  return [
    ...[`--name=${name}`, `--data-dir=${dataDir}`],
    ...[`--listen-client-urls=${clientUrl}`, `--advertise-client-urls=${clientUrl}`],
    ...[`--listen-peer-urls=${peerUrl}`, `--initial-advertise-peer-urls=${peerUrl}`],
  ];
}
