// What `snapshot restore` is asked for, checked as etcdutl checks it before anything is written: the cluster that the restored
// members will be, and directories that nobody uses yet.

import { existsSync, readdirSync } from 'node:fs';
import { clusterId, memberId } from '../config/cluster-id.ts';
import { goQuote, type Parsed } from '../config/go-value.ts';
import { parseInitialCluster, verifyBootstrap } from '../config/initial-cluster.ts';
import { parseMemberUrls, urlTexts } from '../config/member-url.ts';
import { systemClock } from '../io/clock.ts';
import { patientResolver, systemNames } from '../io/names.ts';
import type { StoredMember } from '../snapshot/schema.ts';
import { textOf } from './byte-text.ts';
import { badArguments, ExitCode, ExitError } from './exit.ts';
import { logLine } from './log-line.ts';

export interface RestoreFlags {
  readonly dataDir: string;
  readonly walDir: string;
  readonly name: string;
  readonly initialCluster: string;
  readonly initialClusterToken: string;
  readonly initialAdvertisePeerUrls: string;
  readonly skipHashCheck: boolean;
  readonly bumpRevision: number;
  readonly markCompacted: boolean;
}

export interface RestorePlan {
  readonly dataDir: string;
  readonly walDir: string;
  readonly clusterId: bigint;
  readonly memberId: bigint;
  /** By id. */
  readonly members: readonly StoredMember[];
  readonly checksHash: boolean;
  /** Added to the newest revision, which then counts as compacted; 0: neither. */
  readonly bumpRevision: number;
}

export async function planRestore(flags: RestoreFlags): Promise<RestorePlan> {
  const bumpRevision = flags.bumpRevision;
  if (bumpRevision > 0 !== flags.markCompacted) {
    throw badArguments('--mark-compacted required if --revision-bump > 0');
  }
  const name = textOf(flags.name);
  const token = textOf(flags.initialClusterToken);
  const advertised = accepted(parseMemberUrls(textOf(flags.initialAdvertisePeerUrls)));
  const cluster = accepted(parseInitialCluster(textOf(flags.initialCluster)));
  const resolve = patientResolver(systemNames(), systemClock, logLine);
  const refusal = await verifyBootstrap(name, cluster, advertised, resolve);
  if (refusal !== null) throw new ExitError(ExitCode.error, refusal);
  const members = [...cluster].map(([memberName, urls]): StoredMember => {
    const peerUrls = urlTexts(urls);
    return { id: memberId(peerUrls, token), peerUrls, isLearner: false, name: memberName, clientUrls: [] };
  });
  members.sort((a, b) => (a.id < b.id ? -1 : 1));
  const dataDir = flags.dataDir === '' ? `${name}.etcd` : textOf(flags.dataDir);
  if (existsSync(dataDir) && !isEmptyDirectory(dataDir)) {
    throw new ExitError(ExitCode.error, `data-dir ${goQuote(dataDir)} not empty or could not be read`);
  }
  const walDir = flags.walDir === '' ? `${dataDir}/member/wal` : textOf(flags.walDir).replace(/(?<=.)\/+$/, '');
  if (existsSync(walDir)) throw new ExitError(ExitCode.error, `wal-dir ${goQuote(walDir)} exists`);
  return {
    dataDir,
    walDir,
    clusterId: clusterId(members.map((member) => member.id)),
    memberId: members.find((member) => member.name === name)!.id,
    members,
    checksHash: !flags.skipHashCheck,
    bumpRevision,
  };
}

function accepted<T>(parsed: Parsed<T>): T {
  if (parsed.ok) return parsed.value;
  throw new ExitError(ExitCode.error, parsed.error);
}

function isEmptyDirectory(directory: string): boolean {
  try {
    return readdirSync(directory).length === 0;
  } catch {
    // Not a directory, or not ours to read: not a place to restore into.
    return false;
  }
}
