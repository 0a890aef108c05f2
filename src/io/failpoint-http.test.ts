// Goal: the HTTP contract of gofail. Method: a server on a free port, each verb with good and bad input.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { armFailpoints, disarmFailpoints } from '../base/failpoint.ts';
import { FailpointServer, startFailpoints } from './failpoint-http.ts';

describe('failpoint http', () => {
  let server: FailpointServer;
  before(async () => {
    armFailpoints({
      panic: (name) => {
        throw new Error(name);
      },
      random: () => 0,
    });
    server = await FailpointServer.listen('127.0.0.1:0');
  });
  after(async () => {
    await server.close();
    disarmFailpoints();
  });

  async function call(method: string, path: string, body?: string): Promise<[number, string]> {
    const response = await fetch(`http://127.0.0.1:${server.port}${path}`, {
      method,
      ...(body === undefined ? {} : { body }),
    });
    return [response.status, await response.text()];
  }

  it('lists, sets, reads and deletes', async () => {
    assert.match((await call('GET', '/'))[1], /^afterCommit=\n[\s\S]*\nraftBeforeSave=\n/);
    assert.deepEqual(await call('PUT', '/raftBeforeSave', 'sleep("1s")'), [204, '']);
    assert.deepEqual(await call('GET', '/raftBeforeSave'), [200, 'sleep("1s")\n']);
    assert.deepEqual(await call('GET', '/raftBeforeSave/count'), [200, '0']);
    assert.match((await call('GET', '/'))[1], /\nraftBeforeSave=sleep\("1s"\)\n/);
    assert.deepEqual(await call('DELETE', '/raftBeforeSave'), [204, '']);
    assert.deepEqual(await call('PUT', '/failpoints', 'beforeCommit=panic;afterCommit=off'), [204, '']);
    assert.deepEqual(await call('GET', '/beforeCommit'), [200, 'panic\n']);
    assert.deepEqual(await call('PUT', '/beforeCommit', 'off'), [204, '']);
  });

  it('answers errors as gofail', async () => {
    assert.deepEqual(await call('GET', '/nope'), [404, 'failed to GET: failpoint: failpoint does not exist\n']);
    assert.deepEqual(await call('GET', '/beforeCommit'), [404, 'failed to GET: failpoint: failpoint is disabled\n']);
    assert.deepEqual(await call('PUT', '/nope', 'panic'), [
      400,
      'fail to set failpoint: failpoint: failpoint does not exist\n',
    ]);
    assert.equal((await call('PUT', '/beforeCommit', 'garbage'))[0], 400);
    assert.equal((await call('PUT', '/beforeCommit', 'x'.repeat(5000)))[0], 400);
    assert.equal((await call('DELETE', '/beforeCommit'))[0], 400);
    assert.equal((await call('POST', '/beforeCommit', 'panic'))[0], 405);
    assert.equal((await call('GET', '/%zz'))[0], 400);
  });

  it('is absent unless asked for, and says why it cannot start', async () => {
    assert.equal(await startFailpoints({}), null);
    await assert.rejects(startFailpoints({ GOFAIL_HTTP: 'nowhere' }), /not host:port/);
    await assert.rejects(startFailpoints({ GOFAIL_FAILPOINTS: 'nope=panic' }), /does not exist/);
    await assert.rejects(startFailpoints({ GOFAIL_HTTP: `127.0.0.1:${server.port}` }), /EADDRINUSE/);
  });
});
