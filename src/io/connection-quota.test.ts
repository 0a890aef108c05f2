// Goal: whatever the limit of descriptors, the shares of it leave the member its own, and a member that can serve nobody does not start.
// Method: the shares of limits from none to all.

import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { FatalError } from '../base/fatal.ts';
import { descriptorsReserved, monitorConnectionsMax, peerConnectionsMax } from '../cluster-limits.ts';
import { grpcLimits } from '../connection-limits.ts';
import { ConnectionQuota, connectionShares, descriptorLimit, settleConnection } from './connection-quota.ts';

test('shares of the descriptors', () => {
  for (let limit = descriptorsReserved + 1; limit < 200_000; limit = Math.ceil(limit * 1.07)) {
    const { clients, peers, monitors } = connectionShares(limit);
    assert.ok(clients >= 1 && Number.isInteger(clients) && Number.isInteger(peers), `${limit}`);
    assert.ok(clients <= limit - descriptorsReserved, `${limit}: no more than etcd's clients`);
    // Two thirds of what is reserved stay, of which the member's files and its own connections need less.
    assert.ok(clients + peers + monitors <= limit - 100, `${limit}: ${clients} ${peers} ${monitors}`);
    assert.ok(peers >= 32, `${limit}: six other members get in`);
  }
  assert.deepEqual(connectionShares(300), { clients: 128, peers: 50, monitors: 22 });
  const unlimited = connectionShares(Number.POSITIVE_INFINITY);
  assert.deepEqual(unlimited, {
    clients: grpcLimits.connectionsMax,
    peers: peerConnectionsMax,
    monitors: monitorConnectionsMax,
  });
});

test('a limit that leaves nothing for clients', () => {
  for (const limit of [0, 64, descriptorsReserved]) {
    assert.throws(
      () => connectionShares(limit),
      (error) => error instanceof FatalError && error.exitCode === 1,
    );
  }
});

test('the limit is what the system says', () => {
  assert.ok(descriptorLimit() >= 64);
});

/** What a quota sees of a connection. */
class FakeSocket extends EventEmitter {
  destroyed = false;
  destroy(): this {
    if (!this.destroyed) {
      this.destroyed = true;
      this.emit('close');
    }
    return this;
  }
}

const newSocket = (): Socket => new FakeSocket() as unknown as Socket;

test('the oldest newcomer makes way, whoever has settled never; when all have, nobody more comes in', () => {
  const told: number[] = [];
  const quota = new ConnectionQuota(3, (open) => told.push(open), 'membership');
  const sockets = Array.from({ length: 3 }, newSocket);
  for (const socket of sockets) assert.ok(quota.admits(socket));
  settleConnection(sockets[0]!);
  const fourth = newSocket();
  assert.ok(quota.admits(fourth));
  assert.deepEqual(
    sockets.map(({ destroyed }) => destroyed),
    [false, true, false],
  );
  assert.equal(quota.open, 3);
  settleConnection(sockets[2]!);
  settleConnection(fourth);
  const fifth = newSocket();
  assert.equal(quota.admits(fifth), false);
  assert.ok(fifth.destroyed);
  assert.deepEqual(told, [3], 'told once in a while');
  fourth.destroy();
  assert.equal(quota.open, 2);
  assert.ok(quota.admits(newSocket()));
});
