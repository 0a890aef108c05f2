// Goal: versions are read, compared and judged as etcd does it (go-semver, server/etcdserver/version). Method: the cases of etcd's own
// tests, and texts that are no version.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  invalidDowngrade,
  isLess,
  isValidDowngrade,
  majorMinor,
  parseTarget,
  parseVersion,
  skippedMinor,
  versionText,
} from './semantic-version.ts';

const of = (text: string): NonNullable<ReturnType<typeof parseVersion>> => parseVersion(text)!;

describe('versions', () => {
  it('are three numbers, perhaps with a pre-release and metadata', () => {
    for (const text of ['3.7.1', '3.7.1-alpha.0', '3.7.1+git', '3.7.1-rc.1+x-y']) {
      assert.equal(versionText(of(text)), '3.7.1', text);
    }
    const wrong = [
      '',
      '3',
      '3.7',
      '3.7.1.0',
      'v3.7.1',
      '3.7.x',
      '3.-7.1',
      '3.7.1-',
      '3.7.1-a_b',
      ' 3.7.1',
      'not_decided',
    ];
    for (const text of wrong) assert.equal(parseVersion(text), null, text);
  });

  it('of a downgrade may lack the patch, which does not count', () => {
    for (const text of ['3.6', '3.6.0', '3.6.9', '3.6.9-rc.1']) {
      assert.deepEqual(parseTarget(text), { major: 3, minor: 6, patch: 0 }, text);
    }
    for (const text of ['', '3', '3.6-rc', '3.6.0.1', 'x']) assert.equal(parseTarget(text), null, text);
  });

  it('are ordered by number', () => {
    const ascending = ['2.9.9', '3.0.0', '3.6.10', '3.7.0', '3.7.2', '3.10.0', '4.0.0'].map(of);
    for (const [i, a] of ascending.entries()) {
      for (const [j, b] of ascending.entries())
        assert.equal(isLess(a, b), i < j, `${versionText(a)} ${versionText(b)}`);
    }
  });

  it('of a cluster are shown without their patch', () => {
    assert.equal(majorMinor('3.7.0'), '3.7');
    assert.equal(majorMinor('3.7'), '3.7');
    assert.equal(majorMinor(''), '');
  });

  it('go down by one minor version only', () => {
    assert.equal(isValidDowngrade(of('3.5.2'), of('3.4.0')), true);
    for (const to of ['3.3.0', '3.5.0', '3.6.0', '2.4.0'])
      assert.equal(isValidDowngrade(of('3.5.2'), of(to)), false, to);
  });
});

describe('a server and the version of its cluster', () => {
  it("fit when the server's is not lower", () => {
    for (const cluster of ['3.0.0', '3.6.0', '3.7.0']) assert.equal(invalidDowngrade(of('3.7.1'), of(cluster)), null);
    assert.equal(
      invalidDowngrade(of('3.7.1'), of('3.8.0')),
      'invalid downgrade; server version is lower than determined cluster version (server 3.7, cluster 3.8)',
    );
  });

  it('fit when no minor version is left out; 3.0 is no version yet', () => {
    for (const cluster of ['3.0.0', '3.6.0', '3.7.0', '3.8.0'])
      assert.equal(skippedMinor(of('3.7.1'), of(cluster)), null);
    assert.equal(
      skippedMinor(of('3.7.1'), of('3.5.0')),
      'an upgrade must not skip a minor version: the cluster is at 3.5, this server is 3.7',
    );
  });
});
