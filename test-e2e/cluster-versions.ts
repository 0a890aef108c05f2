// What the members of a cluster say of versions, what etcd's own tool says of a snapshot of theirs, and a member on a restored one.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { Cluster, type ClusterMember, ctl, type Kind } from './cluster.ts';
import { repository, until } from './program.ts';

const run = promisify(execFile);
/** The leader looks at the versions every four seconds, each member at its storage's by a timer of its own. */
const settleTimeoutMs = 40_000;

export interface VersionAnswer {
  readonly etcdserver: string;
  readonly etcdcluster: string;
  readonly storage: string;
}

export async function versionsOf(member: ClusterMember): Promise<VersionAnswer> {
  const response = await fetch(`${member.peerUrl}/version`);
  return (await response.json()) as VersionAnswer;
}

/** Until the cluster's version, as every running member knows it and has stored it, is this one. */
export async function settled(cluster: Cluster, version: string): Promise<void> {
  for (const member of cluster.members) {
    if (!member.isRunning) continue;
    await until(`${member.name} at ${version}`, settleTimeoutMs, async () => {
      const { etcdcluster, storage } = await versionsOf(member);
      if (etcdcluster === version && storage === version) return true;
      throw new Error(`cluster ${etcdcluster}, storage ${storage}`);
    });
  }
}

export interface SnapshotStatus {
  readonly hash: number;
  readonly revision: number;
  readonly totalKey: number;
  /** The storage's; '' in a database of 3.5. */
  readonly version: string;
}

/** By etcdctl, into the folder. */
export async function saveSnapshot(member: ClusterMember, folder: string): Promise<string> {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${member.name}.snapshot`);
  await ctl([member.endpoint], 'snapshot', 'save', file);
  return file;
}

export async function snapshotStatus(file: string, tool = 'etcdutl'): Promise<SnapshotStatus> {
  const { stdout } = await run(join(peerBinaries, tool), ['snapshot', 'status', file, '-w', 'json'], { env: {} });
  const { hash, revision, totalKey, version } = JSON.parse(stdout) as SnapshotStatus;
  return { hash, revision, totalKey, version };
}

/** Snapshots of the members, each in a file, which are of one state and the same to etcd's tool, hash and all. Nothing may be written. */
export async function equalSnapshots(
  members: readonly ClusterMember[],
  folder: string,
  version: string,
): Promise<string[]> {
  return until('snapshots of one state', 20_000, async () => {
    const files: string[] = [];
    for (const member of members) files.push(await saveSnapshot(member, folder));
    const statuses: SnapshotStatus[] = [];
    for (const file of files) statuses.push(await snapshotStatus(file));
    for (const status of statuses) assert.deepEqual(status, { ...statuses[0]!, version });
    return files;
  });
}

const restorers = {
  keelson: join(repository, 'bin/keelsonutl'),
  etcd: join(peerBinaries, 'etcdutl'),
  'etcd-3.6': join(peerBinaries, 'etcdutl-3.6'),
} as const;

/** A cluster of one member of this kind, whose own tool restored the snapshot; started, perhaps not ready. */
export async function onRestored(kind: Kind, file: string, folder: string): Promise<Cluster> {
  mkdirSync(folder, { recursive: true });
  const cluster = await Cluster.create(folder, [kind]);
  const [member] = cluster.members as [ClusterMember];
  const initialCluster = cluster.initialCluster();
  await run(
    restorers[member.kind],
    [
      ...['snapshot', 'restore', file, `--name=${member.name}`, `--data-dir=${member.dataDir}`],
      ...[`--initial-cluster=${initialCluster}`, `--initial-advertise-peer-urls=${member.peerUrl}`],
    ],
    { env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin' } },
  );
  member.launch({ initialCluster, state: 'new' });
  return cluster;
}
