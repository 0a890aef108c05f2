// Goal: the storage version goes only ways that etcd 3.7's migrations know (server/storage/schema/migration.go). Method: a table. That it
// follows the cluster's version is versions.test.ts.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { parseVersion, versionText } from '../membership/semantic-version.ts';
import { migrationSteps } from './storage-version.ts';

function steps(from: string, to: string): readonly string[] | string {
  const way = migrationSteps(parseVersion(from)!, parseVersion(to)!);
  return typeof way === 'string' ? way : way.map(versionText);
}

it('a minor version a step, up and down', () => {
  assert.deepEqual(steps('3.7.0', '3.7.0'), []);
  assert.deepEqual(steps('3.5.0', '3.7.0'), ['3.6.0', '3.7.0']);
  assert.deepEqual(steps('3.7.0', '3.6.0'), ['3.6.0']);
  assert.deepEqual(steps('3.7.0', '3.5.0'), ['3.6.0', '3.5.0']);
  // The patch is nobody's.
  assert.deepEqual(steps('3.6.0', '3.7.1'), ['3.7.0']);
});

it('and no further than what is known', () => {
  assert.equal(steps('3.7.0', '3.8.0'), 'version "3.8.0" is not supported');
  assert.equal(steps('3.9.0', '3.7.0'), 'version "3.9.0" is not supported');
  assert.equal(steps('3.4.0', '3.7.0'), 'version "3.5.0" is not supported');
  assert.equal(steps('3.7.0', '3.4.0'), 'version "3.5.0" is not supported');
  assert.equal(steps('3.7.0', '4.0.0'), 'changing major storage version is not supported');
});
