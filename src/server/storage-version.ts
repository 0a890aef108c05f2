// The version of the stored schema (`storageVersion` in meta): it follows the cluster's version, a minor version a step as etcd's
// migrations do (server/storage/schema). No step between the versions known here changes anything but this number.

import { isLess, majorMinor, parseVersion, type SemanticVersion, versionText } from '../membership/semantic-version.ts';
import { MetaKey } from '../snapshot/schema.ts';
import type { MemberParts } from './member-parts.ts';

const CALLER = 'server/storage-version.ts';

/** The first that stores its version, and the last whose schema is known. */
const firstStored: SemanticVersion = { major: 3, minor: 6, patch: 0 };
const newestKnown: SemanticVersion = { major: 3, minor: 7, patch: 0 };
/** What a database with entries but without a version is of. */
const unnamed: SemanticVersion = { major: 3, minor: 5, patch: 0 };

/** The versions on the way, the last is `target`; or why there is no way. */
export function migrationSteps(current: SemanticVersion, target: SemanticVersion): SemanticVersion[] | string {
  if (current.major !== target.major) return 'changing major storage version is not supported';
  const steps: SemanticVersion[] = [];
  for (let minor = current.minor; minor !== target.minor; ) {
    const isUpgrade = minor < target.minor;
    // What changes is listed under the higher of both.
    const changed = { major: current.major, minor: isUpgrade ? minor + 1 : minor, patch: 0 };
    if (isLess(changed, firstStored) || isLess(newestKnown, changed)) {
      return `version "${versionText(changed)}" is not supported`;
    }
    minor += isUpgrade ? 1 : -1;
    steps.push({ major: current.major, minor, patch: 0 });
  }
  return steps;
}

/** What versions are read from. */
export type VersionParts = Pick<MemberParts, 'backend' | 'cluster' | 'logger' | 'serverVersion'>;

export class StorageVersion {
  private readonly parts: VersionParts;
  /** So that what cannot be done is not told every few seconds. */
  private lastFailure = '';

  constructor(parts: VersionParts) {
    this.parts = parts;
  }

  /** Null: nothing was applied yet. */
  get text(): string | null {
    const { backend } = this.parts;
    const stored = backend.bucketGet('meta', MetaKey.storageVersion)?.toString();
    if (stored !== undefined && parseVersion(stored) !== null) return stored;
    return backend.consistentIndex > 0 ? versionText(unnamed) : null;
  }

  /** Whether it is another than the cluster's: it then follows. */
  get isBehind(): boolean {
    const { version } = this.parts.cluster;
    const text = version === undefined || version === '3.0.0' ? null : this.text;
    return text !== null && majorMinor(text) !== majorMinor(version!);
  }

  /** Part of an apply: follows the cluster's version. */
  follow(): void {
    const { cluster, backend, logger, serverVersion } = this.parts;
    const target = parseVersion(cluster.version ?? '');
    const text = this.text;
    if (!this.isBehind || target === null || text === null) return;
    const shown = { 'cluster-version': versionText(target), 'storage-version': text };
    const steps = migrationSteps(parseVersion(text)!, target);
    if (typeof steps === 'string') {
      if (steps !== this.lastFailure)
        logger.error(CALLER, 'failed to update storage version', { ...shown, error: steps });
      this.lastFailure = steps;
      return;
    }
    this.lastFailure = '';
    logger.info(CALLER, 'cluster version differs from storage version.', shown);
    for (const step of steps) {
      if (isLess(step, firstStored)) backend.bucketDelete('meta', MetaKey.storageVersion);
      else backend.bucketPut('meta', MetaKey.storageVersion, Buffer.from(versionText(step)));
      logger.info(CALLER, 'updated storage version', { 'new-storage-version': versionText(step) });
    }
    if (!cluster.downgrade.isEnabled) return;
    const fields = { 'target-version': cluster.downgrade.targetVersion, 'server-version': serverVersion };
    logger.info(CALLER, 'The server is ready to downgrade', fields);
  }

  /** The same between two applies: a database that came from another member may be of another version than its cluster. */
  followBetweenApplies(): void {
    const { backend } = this.parts;
    if (!this.isBehind || backend.isReplacing) return;
    this.follow();
    backend.endApply(backend.consistentIndex, backend.consistentTerm);
  }
}
