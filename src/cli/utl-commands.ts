// The tree of keelsonutl: etcdutl's commands on files, and dump-log. What a command does is loaded when it runs.

import { etcdVersion } from '../config/version.ts';
import { Command } from './command.ts';
import { CommandLineError } from './command-line.ts';
import { badArguments } from './exit.ts';
import { Flag } from './flag.ts';
import type { Output } from './output.ts';
import type { RestoreFlags } from './restore-plan.ts';

interface GlobalFlags {
  readonly writeOut: string;
}

export function utlProgram(out: Output): Command {
  const program = Command.program('keelsonutl', "Works on keelson's and etcd's files, without a server.", [
    new Flag('string', 'write-out', 'output format: fields, json, protobuf, simple or table', {
      short: 'w',
      byDefault: 'simple',
      shownDefault: '"simple"',
    }),
    // etcdutl waits that long for the lock of a file in use; snapshots are not locked here.
    new Flag('duration', 'timeout', 'accepted for etcdutl, not needed', { byDefault: 10_000, shownDefault: '10s' }),
  ]);
  addSnapshotCommands(program, out);
  addFileCommands(program, out);
  program.add({ use: 'help [command]', short: 'Prints what a command does and takes' });
  return program;
}

function addSnapshotCommands(program: Command, out: Output): void {
  const snapshot = program.add({
    use: 'snapshot <subcommand>',
    short: 'Describes and restores snapshots',
  });
  snapshot.add<GlobalFlags>({
    use: 'status <filename>',
    short: 'Prints hash, revision, number of keys, size and version of a snapshot',
    run: async (words, { writeOut }) => {
      if (words.length !== 1) throw badArguments('snapshot status requires exactly one argument');
      (await import('./snapshot-status.ts')).printStatus(words[0]!, writeOut, out);
    },
  });
  snapshot.add<RestoreFlags>({
    use: 'restore <filename> --data-dir {output dir} [options]',
    short: "Makes a member's data directory from a snapshot of etcd or keelson",
    flags: restoreFlags(),
    run: async (words, flags) => {
      if (words.length !== 1) throw badArguments('snapshot restore requires exactly one argument');
      await (await import('./restore.ts')).restore(words[0]!, flags);
    },
  });
}

function restoreFlags(): Flag[] {
  const text = (name: string, description: string, byDefault: string): Flag =>
    new Flag('string', name, description, byDefault === '' ? {} : { byDefault, shownDefault: `"${byDefault}"` });
  return [
    text('data-dir', 'the directory to make; by default <name>.etcd', ''),
    text('wal-dir', 'where its log goes; by default into the data directory', ''),
    text('name', 'name of the member', 'default'),
    text('initial-cluster', 'members of the new cluster: name=url,…', 'default=http://localhost:2380'),
    text('initial-cluster-token', 'sets the new cluster apart from others', 'etcd-cluster'),
    text('initial-advertise-peer-urls', "the member's own URLs", 'http://localhost:2380'),
    new Flag(
      'bool',
      'skip-hash-check',
      'take a file without a trailing hash, such as a database copied from a data directory',
    ),
    new Flag('uint', 'initial-memory-map-size', 'accepted for etcdutl, not needed'),
    new Flag('uint', 'bump-revision', 'add this to the newest revision, so that clients never see revisions fall'),
    new Flag('bool', 'mark-compacted', 'count the newest revision as compacted (goes with --bump-revision)'),
  ];
}

function addFileCommands(program: Command, out: Output): void {
  const hashKv: Command = program.add<GlobalFlags & { readonly rev: number }>({
    use: 'hashkv <filename>',
    short: 'Prints the hash of the keyspace of a snapshot or database file',
    flags: [new Flag('int', 'rev', 'the revision to hash up to (0 for the latest)')],
    run: async (words, { writeOut, rev }) => {
      if (words.length !== 1) throw new CommandLineError(hashKv, `accepts 1 arg(s), received ${words.length}`);
      (await import('./snapshot-status.ts')).printHashKv(words[0]!, rev, writeOut, out);
    },
  });
  program.add({
    use: 'dump-log <wal directory>',
    short: "Prints a member's raft log as JSON lines",
    run: async (words) => {
      if (words.length !== 1) throw badArguments('dump-log requires exactly one argument: the directory of the log');
      (await import('./dump-log.ts')).dumpLog(words[0]!, out);
    },
  });
  program.add({
    use: 'version',
    short: 'Prints the versions of program and API',
    run: async () => {
      out.line(`keelsonutl version: ${etcdVersion}`);
      out.line(`API version: ${etcdVersion.split('.').slice(0, 2).join('.')}`);
    },
  });
}
