// The texts of --help: the usage that also follows a bad flag, and the flags by group. Our own words; only names, defaults
// and order of the groups are etcd's.

import { type Flag, flagGroups, flags } from './flags.ts';

/** Printed to stderr for a bad flag and before the flags for --help. */
export const usageText: string = `Usage:

  keelson [flags]
    Start a member.

  keelson --version
    Print the versions.

  keelson -h | --help
    Print this help.

  keelson --config-file PATH
    Start a member by a YAML or JSON file; all other flags and all variables are then ignored.
    Durations in the file are whole nanoseconds: 600000000000, not "10m".

Every flag F can be given as the variable KEELSON_F or ETCD_F, in capitals with underscores.
`;

/** Printed to stdout for --help. */
export function flagsText(): string {
  const lines: string[] = [];
  for (const group of flagGroups) {
    if (group === 'Ignored') continue;
    lines.push('', `${group}:`);
    for (const flag of flags)
      if (flag.group === group) lines.push(`  --${flag.name}${shownDefault(flag)}`, `    ${flag.meaning}`);
  }
  const ignored = flags.filter((flag) => flag.group === 'Ignored').map((flag) => `--${flag.name}`);
  lines.push('', 'Accepted without effect:', `  ${ignored.join(' ')}`);
  return `${lines.join('\n')}\n`;
}

function shownDefault(flag: Flag): string {
  return ` '${flag.name === 'data-dir' ? '<name>.etcd' : flag.byDefault}'`;
}
