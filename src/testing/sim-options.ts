// What a seed makes of a simulated cluster: its size, its configuration and how much of each fault it has, drawn anew for each seed
// (swarm testing): a run without any loss but with many crashes finds other things than one with everything.

import type { ServerConfig } from '../config/server-config.ts';
import type { Random } from '../io/random.ts';
import { configOf } from './config-fixture.ts';
import type { ClientOptions } from './sim-clients.ts';
import type { LinkFaults } from './sim-network.ts';

/** Mean time between two of a kind, in ms of the simulation; Infinity: never. */
export interface FaultRates {
  readonly kill: number;
  readonly power: number;
  readonly pause: number;
  readonly cut: number;
  readonly clog: number;
  readonly stall: number;
  readonly wallJump: number;
  readonly fullDisk: number;
  /** A member dies, and what it has on its disk is damaged. */
  readonly damage: number;
  readonly transfer: number;
  /** A step of the operator, who changes the membership. */
  readonly operator: number;
  /** What is down comes back after so long. */
  readonly restart: number;
}

export const noFaults: FaultRates = {
  kill: Infinity,
  power: Infinity,
  pause: Infinity,
  cut: Infinity,
  clog: Infinity,
  stall: Infinity,
  wallJump: Infinity,
  fullDisk: Infinity,
  damage: Infinity,
  transfer: Infinity,
  operator: Infinity,
  restart: 1000,
};

export interface SimOptions {
  readonly seed: number;
  readonly memberCount: number;
  readonly clientCount: number;
  readonly watcherCount: number;
  readonly leaseHolderCount: number;
  /** A lease is renewed after this share of its TTL; above 1 those that are late find out what an expired one does. */
  readonly leaseRenewal: number;
  /** Of the phase with faults. */
  readonly durationMs: number;
  readonly preVote: boolean;
  /** Of raft; an election takes ten of them. */
  readonly heartbeatMs: number;
  readonly catchUpEntries: number;
  /** --snapshot-count: beyond these the log in memory is cut. Small, so that those who lag get snapshots. */
  readonly logSlack: number;
  readonly link: LinkFaults;
  readonly faults: FaultRates;
  /** Largest difference of a clock's speed. */
  readonly clockSkew: number;
  readonly syncMs: number;
  readonly flushMs: number;
  /** Of --corrupt-check-time; 0: members are not compared. */
  readonly corruptCheckMs: number;
  /** With these a member also compares itself with the others before it serves. */
  readonly initialCheck: boolean;
  /** What is damaged is values of rows, which only comparing members finds. */
  readonly rotsRows: boolean;
  readonly client: ClientOptions;
}

function oneOf<T>(random: Random, choices: readonly T[]): T {
  return choices[random.below(choices.length)]!;
}

export function drawOptions(seed: number, random: Random): SimOptions {
  const often = (meanMs: number): number => (random.below(2) === 0 ? Infinity : meanMs * (0.5 + random.float() * 2));
  const rarely = (probability: number): number => (random.below(3) > 0 ? 0 : random.float() * probability);
  const thinkMs = oneOf(random, [5, 20, 100]);
  const drawn: SimOptions = {
    seed,
    memberCount: oneOf(random, [1, 3, 3, 3, 3, 5, 5]),
    clientCount: 2 + random.below(6),
    watcherCount: random.below(5),
    leaseHolderCount: random.below(3),
    leaseRenewal: oneOf(random, [0.33, 0.33, 1.01]),
    // As many calls in any case.
    durationMs: thinkMs === 5 ? 8000 + random.below(10_000) : 20_000 + random.below(40_000),
    preVote: random.below(4) > 0,
    heartbeatMs: oneOf(random, [100, 100, 30]),
    catchUpEntries: oneOf(random, [10, 100, 5000]),
    logSlack: oneOf(random, [20, 200, 10_000]),
    link: {
      leastMs: oneOf(random, [0.05, 0.05, 0.05, 0.05, 30, 130]),
      delayMs: oneOf(random, [0.3, 1, 5, 20]),
      loss: rarely(0.3),
      resend: rarely(0.15),
      repeat: rarely(0.3),
      overtake: rarely(0.5),
      cutOff: rarely(0.2),
    },
    faults: {
      kill: often(8000),
      power: often(8000),
      pause: often(8000),
      cut: often(6000),
      clog: often(6000),
      stall: often(10_000),
      wallJump: often(10_000),
      fullDisk: often(30_000),
      transfer: often(10_000),
      operator: often(2500),
      restart: oneOf(random, [200, 2000, 5000]),
      damage: often(20_000),
    },
    clockSkew: oneOf(random, [0, 0.001, 0.05]),
    syncMs: oneOf(random, [0.1, 1, 10]),
    flushMs: oneOf(random, [0.5, 5, 50]),
    corruptCheckMs: oneOf(random, [0, 0, 2000]),
    initialCheck: oneOf(random, [false, true]),
    rotsRows: false,
    client: {
      keyCount: oneOf(random, [1, 3, 10, 30]),
      thinkMs,
      puts: 0.2 + random.float() * 0.3,
      deletes: random.float() * 0.15,
      swaps: random.float() * 0.3,
      serializable: random.float() * 0.4,
      compactions: oneOf(random, [0, 0.002, 0.02]),
      valueBytes: oneOf(random, [10, 10, 2000]),
    },
  };
  return random.below(10) === 0 ? withRot(drawn) : drawn;
}

/**
 * Rot may not spread with a snapshot of whoever has it: followers get all by the log. Under the alarm leases do not end and the operator
 * has his hands full. Members are compared at a revision that none of them has compacted meanwhile, in etcd too: compactions are some
 * seconds apart.
 */
export function withRot(options: SimOptions): SimOptions {
  return {
    ...options,
    memberCount: Math.max(3, options.memberCount),
    leaseHolderCount: 0,
    catchUpEntries: 1_000_000,
    logSlack: 1_000_000,
    corruptCheckMs: 2000,
    rotsRows: true,
    faults: { ...options.faults, damage: 5000, operator: Infinity, fullDisk: Infinity },
    client: { ...options.client, compactions: options.client.thinkMs * 2e-5 },
  };
}

export const peerUrlOf = (slot: number): string => `http://10.0.0.${slot + 1}:2380`;

/** The configuration of the member in a slot, as its flags would make it. */
export function memberConfig(slot: number, initialCluster: string, options: SimOptions): Promise<ServerConfig> {
  const isCompared = options.corruptCheckMs > 0;
  const isFirst = slot < options.memberCount;
  const host = `10.0.0.${slot + 1}`;
  return configOf(
    `--name=m${slot + 1}`,
    `--data-dir=/m${slot + 1}`,
    `--listen-peer-urls=http://${host}:2380`,
    `--initial-advertise-peer-urls=${peerUrlOf(slot)}`,
    `--listen-client-urls=http://${host}:2379`,
    `--advertise-client-urls=http://${host}:2379`,
    `--initial-cluster=${isFirst ? initialCluster : `${initialCluster},m${slot + 1}=${peerUrlOf(slot)}`}`,
    `--initial-cluster-state=${isFirst ? 'new' : 'existing'}`,
    `--pre-vote=${options.preVote}`,
    `--heartbeat-interval=${options.heartbeatMs}`,
    `--election-timeout=${10 * options.heartbeatMs}`,
    `--snapshot-catchup-entries=${options.catchUpEntries}`,
    `--snapshot-count=${options.logSlack}`,
    '--max-wals=2',
    '--strict-reconfig-check=true',
    `--corrupt-check-time=${options.corruptCheckMs}ms`,
    `--feature-gates=CompactHashCheck=${isCompared},InitialCorruptCheck=${isCompared && options.initialCheck}`,
    '--compact-hash-check-time=3s',
  );
}
