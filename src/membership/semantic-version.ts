// Versions of servers and clusters, as etcd reads them (go-semver): three numbers and perhaps a pre-release, which no decision here
// looks at. A cluster's version has patch 0.

export interface SemanticVersion {
  readonly major: number;
  readonly minor: number;
  readonly patch: number;
}

/** What etcd gives a new cluster of whose members it does not know all versions. */
export const minClusterVersion: SemanticVersion = { major: 3, minor: 0, patch: 0 };

const pattern = /^(\d{1,15})\.(\d{1,15})\.(\d{1,15})(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?$/;

export function parseVersion(text: string): SemanticVersion | null {
  const match = pattern.exec(text);
  return match === null ? null : { major: Number(match[1]), minor: Number(match[2]), patch: Number(match[3]) };
}

/** As the target of a downgrade may be written: with or without its patch, which does not count. */
export function parseTarget(text: string): SemanticVersion | null {
  const version = parseVersion(text) ?? parseVersion(`${text}.0`);
  return version === null ? null : clusterVersionOf(version);
}

export function versionText({ major, minor, patch }: SemanticVersion): string {
  return `${major}.${minor}.${patch}`;
}

/** 3.7 of 3.7.1; what has no patch stays. */
export function majorMinor(text: string): string {
  return text.split('.').slice(0, 2).join('.');
}

export function clusterVersionOf({ major, minor }: SemanticVersion): SemanticVersion {
  return { major, minor, patch: 0 };
}

export function isLess(a: SemanticVersion, b: SemanticVersion): boolean {
  if (a.major !== b.major) return a.major < b.major;
  return a.minor === b.minor ? a.patch < b.patch : a.minor < b.minor;
}

export function isSame(a: SemanticVersion, b: SemanticVersion): boolean {
  return a.major === b.major && a.minor === b.minor && a.patch === b.patch;
}

/** A cluster goes down by one minor version, never by more. */
export function isValidDowngrade(from: SemanticVersion, to: SemanticVersion): boolean {
  return isSame(to, { major: from.major, minor: from.minor - 1, patch: 0 });
}

/** Why a server of version `server` does not belong into a cluster of version `cluster`, in etcd's words; null: it may. */
export function invalidDowngrade(server: SemanticVersion, cluster: SemanticVersion): string | null {
  if (!isLess(clusterVersionOf(server), cluster)) return null;
  return (
    'invalid downgrade; server version is lower than determined cluster version ' +
    `(server ${majorMinor(versionText(server))}, cluster ${majorMinor(versionText(cluster))})`
  );
}

/**
 * Why a server may not take up the state of a cluster of version `cluster`: it would leave out a minor version. etcd's documents
 * forbid that and its code lets it happen. 3.0 says only that the version is not decided yet.
 */
export function skippedMinor(server: SemanticVersion, cluster: SemanticVersion): string | null {
  if (isSame(cluster, minClusterVersion) || server.major !== cluster.major) return null;
  if (server.minor - cluster.minor <= 1) return null;
  const [from, to] = [cluster, server].map((version) => majorMinor(versionText(version)));
  return `an upgrade must not skip a minor version: the cluster is at ${from}, this server is ${to}`;
}
