// At a start, and when the database of a leader's snapshot was installed: whether this version of the server may take up what the database
// holds, as etcd checks it (schema.Validate, and MustDetectDowngrade in membership's Recover).

import { ExitCode, FatalError } from '../base/fatal.ts';
import { invalidDowngrade, parseVersion, skippedMinor } from '../membership/semantic-version.ts';
import { MetaKey } from '../snapshot/schema.ts';
import { migrationSteps, type VersionParts } from './storage-version.ts';

/** Throws FatalError when not. */
export function checkVersions({ backend, cluster, logger, serverVersion }: VersionParts): void {
  const server = parseVersion(serverVersion)!;
  const stored = parseVersion(backend.bucketGet('meta', MetaKey.storageVersion)?.toString() ?? '');
  if (stored !== null) {
    const steps = migrationSteps(stored, server);
    if (typeof steps === 'string')
      throw new FatalError(ExitCode.dataDir, `failed to validate the stored schema: ${steps}`);
  }
  if (cluster.downgrade.isEnabled) {
    logger.info('server/version-check.ts', 'cluster is downgrading to target version', {
      'target-cluster-version': cluster.downgrade.targetVersion,
      'current-server-version': serverVersion,
    });
  }
  const version = parseVersion(cluster.version ?? '');
  if (version === null) return;
  const reason = invalidDowngrade(server, version) ?? skippedMinor(server, version);
  if (reason !== null) throw new FatalError(ExitCode.dataDir, reason);
}
