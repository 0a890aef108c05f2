// The tree of keelsonctl: names, texts and flags of etcdctl's commands. What a command does is loaded when it runs, so that
// none pays for the others at start.

import { etcdVersion } from '../config/version.ts';
import { Command } from './command.ts';
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
  const program = Command.program('keelsonctl', 'A command line client for keelson and etcd.', globalFlags());
  addKeyCommands(program, session);
  addLeaseCommands(program, session);
  addClusterCommands(program, session);
  addMemberCommands(program, session);
  addEndpointCommands(program, session);
  addUtilityCommands(program, session);
  return program;
}

type SessionOf = (command: Command) => Session;

function addKeyCommands(program: Command, session: SessionOf): void {
  const group = groups.keys;
  const get: Command = program.add<GetFlags>({
    use: 'get [options] <key> [range_end]',
    short: 'Reads a key or a range of keys',
    group,
    flags: getFlags(),
    run: async (words, flags) => (await import('./get.ts')).runGet(session(get), words, flags),
  });
  const put: Command = program.add<PutFlags>({
    use: 'put [options] <key> <value> (<value> can also be given from stdin)',
    short: 'Sets a key to a value',
    long: putHelp,
    group,
    flags: putFlags(),
    run: async (words, flags) => (await import('./put.ts')).runPut(session(put), words, flags),
  });
  const del: Command = program.add<DelFlags>({
    use: 'del [options] <key> [range_end]',
    short: 'Deletes a key or the keys of [key, range_end)',
    group,
    flags: delFlags(),
    run: async (words, flags) => (await import('./del.ts')).runDel(session(del), words, flags),
  });
  const txn: Command = program.add<{ interactive: boolean }>({
    use: 'txn [options]',
    short: 'Runs several requests as one transaction',
    long: txnHelp,
    group,
    flags: [new Flag('bool', 'interactive', 'ask for each part', { short: 'i' })],
    run: async (words, flags) => (await import('./txn.ts')).runTxn(session(txn), words, flags.interactive),
  });
  const watch: Command = program.add<WatchFlags>({
    use: 'watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]',
    short: 'Prints the changes of keys as they happen',
    group,
    flags: watchFlags(),
    run: async (words, flags) => (await import('./watch.ts')).runWatch(session(watch), words, flags),
  });
  const compaction: Command = program.add<{ physical: boolean }>({
    use: 'compaction [options] <revision>',
    short: 'Drops the history before a revision',
    group,
    flags: [new Flag('bool', 'physical', 'wait until the old revisions are really gone')],
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
  const lease = program.add({
    use: 'lease <subcommand>',
    short: 'Grants, renews, lists and revokes leases',
    group: groups.keys,
  });
  const grant: Command = lease.add({
    use: 'grant <ttl>',
    short: 'Grants a lease of <ttl> seconds',
    run: async (words) => (await import('./lease.ts')).runGrant(session(grant), words),
  });
  const revoke: Command = lease.add({
    use: 'revoke <leaseID>',
    short: 'Ends a lease and deletes its keys',
    run: async (words) => (await import('./lease.ts')).runRevoke(session(revoke), words),
  });
  const timeToLive: Command = lease.add<{ keys: boolean }>({
    use: 'timetolive <leaseID> [options]',
    short: 'Tells how long a lease has left',
    flags: [new Flag('bool', 'keys', 'also list the keys that are attached to it')],
    run: async (words, flags) => (await import('./lease.ts')).runTimeToLive(session(timeToLive), words, flags.keys),
  });
  const list: Command = lease.add({
    use: 'list',
    short: 'Lists all leases',
    run: async () => (await import('./lease.ts')).runList(session(list)),
  });
  const keepAlive: Command = lease.add<{ once: boolean }>({
    use: 'keep-alive [options] <leaseID>',
    short: 'Renews a lease for as long as the command runs',
    flags: [new Flag('bool', 'once', 'renew it once and end')],
    run: async (words, flags) => (await import('./lease.ts')).runKeepAlive(session(keepAlive), words, flags.once),
  });
}

function addClusterCommands(program: Command, session: SessionOf): void {
  const group = groups.cluster;
  const alarm = program.add({
    use: 'alarm <subcommand>',
    short: 'Lists and disarms alarms',
    group,
  });
  const disarm: Command = alarm.add({
    use: 'disarm',
    short: 'Turns all alarms off',
    run: async (words) => (await import('./cluster.ts')).runAlarmDisarm(session(disarm), words),
  });
  const alarmList: Command = alarm.add({
    use: 'list',
    short: 'Lists the alarms that are on',
    run: async (words) => (await import('./cluster.ts')).runAlarmList(session(alarmList), words),
  });
  const moveLeader: Command = program.add({
    use: 'move-leader <transferee-member-id>',
    short: 'Hands the leadership to another member',
    group,
    run: async (words) => (await import('./cluster.ts')).runMoveLeader(session(moveLeader), words),
  });
  const downgrade = program.add({
    use: 'downgrade <subcommand>',
    short: 'Takes the cluster down by a minor version',
    group,
  });
  const validate: Command = downgrade.add({
    use: 'validate <TARGET_VERSION>',
    short: 'Says whether the cluster could go down to a version now',
    run: async (words) => (await import('./cluster.ts')).runDowngrade(session(validate), 'validate', words),
  });
  const enable: Command = downgrade.add({
    use: 'enable <TARGET_VERSION>',
    short: 'Begins to take the cluster down to a version',
    run: async (words) => (await import('./cluster.ts')).runDowngrade(session(enable), 'enable', words),
  });
  const cancel: Command = downgrade.add({
    use: 'cancel',
    short: 'Gives up going down',
    run: async () => (await import('./cluster.ts')).runDowngradeCancel(session(cancel)),
  });
  const snapshot = program.add({
    use: 'snapshot <subcommand>',
    short: 'Saves a snapshot of a member',
    group,
  });
  const save: Command = snapshot.add({
    use: 'save <filename>',
    short: 'Saves the database of a member to a file',
    run: async (words) => (await import('./snapshot-save.ts')).runSnapshotSave(session(save), words),
  });
}

function addMemberCommands(program: Command, session: SessionOf): void {
  const member = program.add({
    use: 'member <subcommand>',
    short: 'Lists, adds, updates, promotes and removes members of the cluster',
    group: groups.cluster,
  });
  const peerUrls = (): Flag => new Flag('string', 'peer-urls', "the member's peer URLs, separated by commas");
  const add: Command = member.add<{ peerUrls: string; learner: boolean }>({
    use: 'add <memberName> [options]',
    short: 'Adds a member',
    flags: [peerUrls(), new Flag('bool', 'learner', 'as a learner, which has no vote')],
    run: async (words, flags) => (await import('./member.ts')).runMemberAdd(session(add), words, flags),
  });
  const remove: Command = member.add({
    use: 'remove <memberID>',
    short: 'Removes a member',
    run: async (words) => (await import('./member.ts')).runMemberRemove(session(remove), words),
  });
  const update: Command = member.add<{ peerUrls: string }>({
    use: 'update <memberID> [options]',
    short: 'Gives a member other peer URLs',
    flags: [peerUrls()],
    run: async (words, flags) => (await import('./member.ts')).runMemberUpdate(session(update), words, flags.peerUrls),
  });
  const promote: Command = member.add({
    use: 'promote <memberID>',
    short: 'Gives a learner a vote',
    run: async (words) => (await import('./member.ts')).runMemberPromote(session(promote), words),
  });
  const list: Command = member.add<{ consistency: string }>({
    use: 'list',
    short: 'Lists the members of the cluster',
    flags: [
      new Flag('string', 'consistency', 'l for linearizable, s for serializable', {
        byDefault: 'l',
        shownDefault: '"l"',
      }),
    ],
    run: async (_words, flags) => (await import('./member.ts')).runMemberList(session(list), flags.consistency),
  });
}

function addEndpointCommands(program: Command, session: SessionOf): void {
  const group = groups.cluster;
  const clusterFlag = (): Flag => new Flag('bool', 'cluster', 'all members of the cluster, not only --endpoints');
  const endpoint = program.add({
    use: 'endpoint <subcommand>',
    short: 'Health, status and hash of members',
    group,
    flags: [clusterFlag()],
  });
  // A variable may set the flag when the session is configured: it is read after that.
  const isCluster = (): boolean => endpoint.values<{ cluster: boolean }>().cluster;
  const configured = async (command: Command): Promise<Session> => {
    const own = session(command);
    await own.configure();
    return own;
  };
  const health: Command = endpoint.add({
    use: 'health',
    short: 'Tells whether each endpoint serves',
    run: async () => {
      const own = await configured(health);
      return (await import('./endpoint.ts')).runHealth(own, isCluster());
    },
  });
  const status: Command = endpoint.add({
    use: 'status',
    short: 'Prints version, size, leader and indexes of each endpoint',
    run: async () => {
      const own = await configured(status);
      return (await import('./endpoint.ts')).runStatus(own, isCluster());
    },
  });
  const hashKv: Command = endpoint.add<{ rev: number }>({
    use: 'hashkv',
    short: 'Prints the hash of the keyspace of each endpoint',
    flags: [new Flag('int', 'rev', 'the revision to hash up to (0 for the latest)')],
    run: async (_words, flags) => {
      const own = await configured(hashKv);
      return (await import('./endpoint.ts')).runHashKv(own, isCluster(), flags.rev);
    },
  });
  const defrag: Command = program.add<{ cluster: boolean }>({
    use: 'defrag',
    short: 'Gives the free space of the database back to the disk',
    group,
    flags: [clusterFlag()],
    run: async (_words, flags) => (await import('./endpoint.ts')).runDefrag(session(defrag), flags.cluster),
  });
}

function addUtilityCommands(program: Command, session: SessionOf): void {
  const group = groups.utility;
  // Answered where the command line is read.
  program.add({ use: 'help [command]', short: 'Prints what a command does and takes', group });
  const version: Command = program.add({
    use: 'version',
    short: 'Prints the versions of program and API',
    group,
    run: async () => {
      const { out } = session(version);
      out.line(`keelsonctl version: ${etcdVersion}`);
      out.line(`API version: ${etcdVersion.split('.').slice(0, 2).join('.')}`);
    },
  });
  const options: Command = program.add({
    use: 'options',
    short: 'Lists the flags that every command takes',
    group,
    run: async () => {
      session(options).out.text(`Every command takes:\n\n${flagLines(program.flags)}`);
    },
  });
}
