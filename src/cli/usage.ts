// Help and usage of a command, laid out as cobra does: description, usage line, subcommands by group, flags with their types
// and defaults. The words differ from etcd's tools only where the programs do.

import type { Command } from './command.ts';
import type { Flag } from './flag.ts';

/** With the description first when it is help that was asked for, without when it follows an error. */
export function usageText(command: Command, withDescription: boolean): string {
  const parts: string[] = [];
  if (withDescription && command.long !== '') parts.push(`${command.long.trimEnd()}\n`);
  const { path, children } = command;
  if (children.length > 0) {
    parts.push(`Usage:\n  ${path} [command]\n`, ...groupTexts(children));
  } else {
    const parent = path.slice(0, path.length - command.name.length);
    parts.push(`Usage:\n  ${parent}${command.use} [flags]\n`);
  }
  // The global flags have a command of their own.
  if (command.parent !== null) parts.push(`Flags:\n${flagLines([...command.flags, command.help])}`);
  const inherited = inheritedFlags(command);
  if (inherited.length > 0) parts.push(`Global Flags:\n${flagLines(inherited)}`);
  if (children.length > 0) parts.push(`Use "${path} [command] --help" for more about one of them.\n`);
  return parts.join('\n');
}

/** Of the commands between this one and the program. */
function inheritedFlags(command: Command): Flag[] {
  const [, ...above] = command.lineage();
  return above.slice(0, -1).flatMap((each) => each.flags);
}

function groupTexts(children: readonly Command[]): string[] {
  const width = Math.max(11, ...children.map((child) => child.name.length));
  const groups = new Map<string, string[]>();
  for (const child of children) {
    const group = child.group ?? 'Available Commands:';
    const lines = groups.get(group) ?? [];
    lines.push(`  ${child.name.padEnd(width)} ${child.short}\n`);
    groups.set(group, lines);
  }
  return [...groups].map(([group, lines]) => `${group}\n${lines.sort().join('')}`);
}

/** pflag's FlagUsages: sorted by name, types aligned with the texts after them. */
export function flagLines(flags: readonly Flag[]): string {
  const rows = flags.map((flag) => {
    const type = flag.type === 'bool' ? '' : ` ${flag.type}`;
    const short = flag.short === undefined ? '    ' : `-${flag.short}, `;
    const shown = flag.shownDefault === undefined ? '' : ` (default ${flag.shownDefault})`;
    return { name: flag.name, left: `  ${short}--${flag.name}${type}`, right: `${flag.description}${shown}` };
  });
  rows.sort((a, b) => (a.name < b.name ? -1 : 1));
  const width = Math.max(...rows.map((row) => row.left.length));
  return rows.map((row) => `${row.left.padEnd(width)}   ${row.right}\n`).join('');
}
