// The tree of keelsonctl: names, texts and flags of etcdctl's commands. What a command does is loaded when it runs, so that
// none pays for the others at start.

import type { Command } from 'commander';
import { etcdVersion } from '../config/version.ts';
import { addCommand, newCommand } from './command-line.ts';
import { Flag } from './flag.ts';
import { globalFlags } from './global-flags.ts';
import { type DelFlags, delFlags, type GetFlags, getFlags, type PutFlags, putFlags, putHelp } from './kv-flags.ts';
import type { Session } from './session.ts';
import { flagLines } from './usage.ts';
import { type WatchFlags, watchFlags } from './watch-flags.ts';

const groups = {
  keys: 'Key-value commands',
  cluster: 'Cluster maintenance commands',
  utility: 'Utility commands',
} as const;

/** `session`: called when a command runs, with it. */
export function ctlProgram(session: (command: Command) => Session): Command {
  const program = newCommand('keelsonctl').description('A command line client for keelson and etcd.');
  for (const flag of globalFlags()) program.addOption(flag);
  addKeyCommands(program, session);
  addLeaseCommands(program, session);
  addClusterCommands(program, session);
  addEndpointCommands(program, session);
  addUtilityCommands(program, session);
  return program;
}

type SessionOf = (command: Command) => Session;

function addKeyCommands(program: Command, session: SessionOf): void {
  const group = groups.keys;
  const get: Command = addCommand<GetFlags>(program, {
    use: 'get [options] <key> [range_end]',
    short: 'Gets the key or a range of keys',
    group,
    flags: getFlags(),
    run: async (words, flags) => (await import('./get.ts')).runGet(session(get), words, flags),
  });
  const put: Command = addCommand<PutFlags>(program, {
    use: 'put [options] <key> <value> (<value> can also be given from stdin)',
    short: 'Puts the given key into the store',
    long: putHelp,
    group,
    flags: putFlags(),
    run: async (words, flags) => (await import('./put.ts')).runPut(session(put), words, flags),
  });
  const del: Command = addCommand<DelFlags>(program, {
    use: 'del [options] <key> [range_end]',
    short: 'Removes the specified key or range of keys [key, range_end)',
    group,
    flags: delFlags(),
    run: async (words, flags) => (await import('./del.ts')).runDel(session(del), words, flags),
  });
  const txn: Command = addCommand<{ interactive: boolean }>(program, {
    use: 'txn [options]',
    short: 'Txn processes all the requests in one transaction',
    long: txnHelp,
    group,
    flags: [new Flag('bool', 'interactive', 'Input transaction in interactive mode', { short: 'i' })],
    run: async (words, flags) => (await import('./txn.ts')).runTxn(session(txn), words, flags.interactive),
  });
  const watch: Command = addCommand<WatchFlags>(program, {
    use: 'watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]',
    short: 'Watches events stream on keys or prefixes',
    group,
    flags: watchFlags(),
    run: async (words, flags) => (await import('./watch.ts')).runWatch(session(watch), words, flags),
  });
  const compaction: Command = addCommand<{ physical: boolean }>(program, {
    use: 'compaction [options] <revision>',
    short: 'Compacts the event history in the store',
    group,
    flags: [new Flag('bool', 'physical', "'true' to wait for compaction to physically remove all old revisions")],
    run: async (words, flags) =>
      (await import('./cluster.ts')).runCompaction(session(compaction), words, flags.physical),
  });
}

const txnHelp = `Txn reads multiple requests from standard input and applies them as a single atomic transaction.

A transaction consists of three parts, each ended by an empty line:
1) conditions,
2) requests to apply if all the conditions are true,
3) requests to apply if any condition is false.

$ keelsonctl txn -i
compares:
mod("key1") > "0"

success requests (get, put, del):
put key1 "overwrote-key1"

failure requests (get, put, del):
put key1 "created-key1"
`;

function addLeaseCommands(program: Command, session: SessionOf): void {
  const lease = addCommand(program, {
    use: 'lease <subcommand>',
    short: 'Lease related commands. Use `keelsonctl lease --help` to see subcommands',
    long: 'Lease related commands',
    group: groups.keys,
  });
  const grant: Command = addCommand(lease, {
    use: 'grant <ttl>',
    short: 'Creates leases',
    run: async (words) => (await import('./lease.ts')).runGrant(session(grant), words),
  });
  const revoke: Command = addCommand(lease, {
    use: 'revoke <leaseID>',
    short: 'Revokes leases',
    run: async (words) => (await import('./lease.ts')).runRevoke(session(revoke), words),
  });
  const timeToLive: Command = addCommand<{ keys: boolean }>(lease, {
    use: 'timetolive <leaseID> [options]',
    short: 'Get lease information',
    flags: [new Flag('bool', 'keys', 'Get keys attached to this lease')],
    run: async (words, flags) => (await import('./lease.ts')).runTimeToLive(session(timeToLive), words, flags.keys),
  });
  const list: Command = addCommand(lease, {
    use: 'list',
    short: 'List all active leases',
    run: async () => (await import('./lease.ts')).runList(session(list)),
  });
  const keepAlive: Command = addCommand<{ once: boolean }>(lease, {
    use: 'keep-alive [options] <leaseID>',
    short: 'Keeps leases alive (renew)',
    flags: [new Flag('bool', 'once', 'Resets the keep-alive time to its original value and exits immediately')],
    run: async (words, flags) => (await import('./lease.ts')).runKeepAlive(session(keepAlive), words, flags.once),
  });
}

function addClusterCommands(program: Command, session: SessionOf): void {
  const group = groups.cluster;
  const alarm = addCommand(program, {
    use: 'alarm <subcommand>',
    short: 'Alarm related commands. Use `keelsonctl alarm --help` to see subcommands',
    long: 'Alarm related commands',
    group,
  });
  const disarm: Command = addCommand(alarm, {
    use: 'disarm',
    short: 'Disarms all alarms',
    run: async (words) => (await import('./cluster.ts')).runAlarmDisarm(session(disarm), words),
  });
  const alarmList: Command = addCommand(alarm, {
    use: 'list',
    short: 'Lists all alarms',
    run: async (words) => (await import('./cluster.ts')).runAlarmList(session(alarmList), words),
  });
  const member = addCommand(program, {
    use: 'member <subcommand>',
    short: 'Membership related commands. Use `keelsonctl member --help` to see subcommands',
    long: 'Membership related commands',
    group,
  });
  const memberList: Command = addCommand<{ consistency: string }>(member, {
    use: 'list',
    short: 'Lists all members in the cluster',
    flags: [
      new Flag('string', 'consistency', 'Linearizable(l) or Serializable(s)', { byDefault: 'l', shownDefault: '"l"' }),
    ],
    run: async (_words, flags) => (await import('./cluster.ts')).runMemberList(session(memberList), flags.consistency),
  });
  const moveLeader: Command = addCommand(program, {
    use: 'move-leader <transferee-member-id>',
    short: 'Transfers leadership to another cluster member.',
    group,
    run: async (words) => (await import('./cluster.ts')).runMoveLeader(session(moveLeader), words),
  });
  const snapshot = addCommand(program, {
    use: 'snapshot <subcommand>',
    short: 'Manages snapshots of a member',
    group,
  });
  const save: Command = addCommand(snapshot, {
    use: 'save <filename>',
    short: "Stores a snapshot of the member's database in a given file",
    run: async (words) => (await import('./snapshot-save.ts')).runSnapshotSave(session(save), words),
  });
}

function addEndpointCommands(program: Command, session: SessionOf): void {
  const group = groups.cluster;
  const clusterFlag = (): Flag => new Flag('bool', 'cluster', 'use all endpoints from the cluster member list');
  const endpoint = addCommand(program, {
    use: 'endpoint <subcommand>',
    short: 'Endpoint related commands. Use `keelsonctl endpoint --help` to see subcommands',
    long: 'Endpoint related commands',
    group,
    flags: [clusterFlag()],
  });
  // A variable may set the flag when the session is configured: it is read after that.
  const isCluster = (): boolean => endpoint.opts<{ cluster: boolean }>().cluster;
  const configured = async (command: Command): Promise<Session> => {
    const own = session(command);
    await own.configure();
    return own;
  };
  const health: Command = addCommand(endpoint, {
    use: 'health',
    short: 'Checks the healthiness of endpoints specified in `--endpoints` flag',
    run: async () => {
      const own = await configured(health);
      return (await import('./endpoint.ts')).runHealth(own, isCluster());
    },
  });
  const status: Command = addCommand(endpoint, {
    use: 'status',
    short: 'Prints out the status of endpoints specified in `--endpoints` flag',
    run: async () => {
      const own = await configured(status);
      return (await import('./endpoint.ts')).runStatus(own, isCluster());
    },
  });
  const hashKv: Command = addCommand<{ rev: number }>(endpoint, {
    use: 'hashkv',
    short: 'Prints the KV history hash for each endpoint in --endpoints',
    flags: [new Flag('int', 'rev', 'maximum revision to hash (default: latest revision)')],
    run: async (_words, flags) => {
      const own = await configured(hashKv);
      return (await import('./endpoint.ts')).runHashKv(own, isCluster(), flags.rev);
    },
  });
  const defrag: Command = addCommand<{ cluster: boolean }>(program, {
    use: 'defrag',
    short: 'Defragments the storage of the members with given endpoints',
    group,
    flags: [clusterFlag()],
    run: async (_words, flags) => (await import('./endpoint.ts')).runDefrag(session(defrag), flags.cluster),
  });
}

function addUtilityCommands(program: Command, session: SessionOf): void {
  const group = groups.utility;
  const version: Command = addCommand(program, {
    use: 'version',
    short: 'Prints the version of keelsonctl',
    group,
    run: async () => {
      const { out } = session(version);
      out.line(`keelsonctl version: ${etcdVersion}`);
      out.line(`API version: ${etcdVersion.split('.').slice(0, 2).join('.')}`);
    },
  });
  const options: Command = addCommand(program, {
    use: 'options',
    short: 'Show the global command-line flags',
    group,
    run: async () => {
      const flags = program.options.filter((option) => option instanceof Flag);
      session(options).out.text(`The following options can be passed to any command:\n\n${flagLines(flags, null)}`);
    },
  });
}
