// Goal: members talk or don't as etcd's version check has it. Method: the table of etcd's own test (rafthttp/util_test.go), and texts.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkVersions, knowsStreams, parseVersion } from './peer-version.ts';

const version = (text: string): NonNullable<ReturnType<typeof parseVersion>> => parseVersion(text)!;

describe('peer version', () => {
  it('is major, minor and patch, with what may follow', () => {
    assert.deepEqual(version('3.7.1'), { major: 3, minor: 7, text: '3.7.1' });
    assert.equal(version('3.8.0-alpha.0+git').minor, 8);
    assert.equal(version('').text, '2.0.0');
    for (const text of ['3', '3.7', 'v3.7.1', '3.7.x', ' 3.7.1', '3.7.1.2', '3.9999999999.1']) {
      assert.equal(parseVersion(text), null, text);
    }
  });

  it('must reach what the other one works with', () => {
    const local = version('3.7.1');
    const rows: [server: string, minCluster: string, error: RegExp | null][] = [
      ['3.7.1', '3.0.0', null],
      ['3.0.0', '3.0.0', null],
      ['3.8.9', '3.7.2', null],
      ['4.0.0', '3.0.0', null],
      ['2.3.8', '2.3.0', /^remote version is too low: remote\[x\]=2\.3\.8, local=3\.7\.1$/],
      ['3.9.0', '3.8.0', /^local version is too low: remote\[x\]=3\.9\.0, local=3\.7\.1$/],
    ];
    for (const [server, minCluster, error] of rows) {
      const told = checkVersions(local, 'x', version(server), version(minCluster));
      if (error === null) assert.equal(told, null, server);
      else assert.match(told!, error);
    }
  });

  it('knows the streams from 2.1 on', () => {
    const known = ['2.1.0', '2.3.9', '3.0.0', '3.6.1'].map((text) => knowsStreams(version(text)));
    assert.deepEqual(known, [true, true, true, true]);
    assert.equal(knowsStreams(version('2.0.0')), false);
  });
});
