// Goal: whatever the limit of descriptors, the shares of it leave the member its own, and a member that can serve nobody does not start.
// Method: the shares of limits from none to all.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FatalError } from '../base/fatal.ts';
import { descriptorsReserved, monitorConnectionsMax, peerConnectionsMax } from '../cluster-limits.ts';
import { grpcLimits } from '../connection-limits.ts';
import { ConnectionQuota, connectionShares, descriptorLimit } from './connection-quota.ts';

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

test('refusals are told once in a while', () => {
  const told: number[] = [];
  const quota = new ConnectionQuota(2, (open) => told.push(open));
  assert.equal(quota.isUsedUp, false);
  quota.open = 2;
  assert.equal(quota.isUsedUp, true);
  quota.refused();
  quota.refused();
  assert.deepEqual(told, [2]);
});
