// Help and usage of a command, laid out as cobra does: description, usage line, subcommands by group, flags with their types
// and defaults. The words differ from etcd's tools only where the programs do.

import type { Command } from 'commander';
import { Flag } from './flag.ts';

/** With the description first when it is help that was asked for, without when it follows an error. */
export function usageText(command: Command, withDescription: boolean): string {
  const parts: string[] = [];
  if (withDescription && command.description() !== '') parts.push(`${command.description().trimEnd()}\n`);
  const path = commandPath(command);
  if (command.commands.length > 0) {
    parts.push(`Usage:\n  ${path} [command]\n`, ...groupTexts(command));
  } else {
    const parent = path.slice(0, path.length - command.name().length);
    parts.push(`Usage:\n  ${parent}${command.usage()} [flags]\n`);
  }
  // The global flags have a command of their own.
  if (command.parent !== null) {
    const own = command.options.filter((option) => option instanceof Flag);
    parts.push(`Flags:\n${flagLines(own, command.name())}`);
  }
  const inherited = inheritedFlags(command);
  if (inherited.length > 0) parts.push(`Global Flags:\n${flagLines(inherited, null)}`);
  if (command.commands.length > 0) parts.push(`Use "${path} [command] --help" for more about one of them.\n`);
  return parts.join('\n');
}

/** Of the commands between this one and the program. */
function inheritedFlags(command: Command): Flag[] {
  const flags: Flag[] = [];
  for (let each = command.parent; each !== null && each.parent !== null; each = each.parent) {
    flags.push(...each.options.filter((option) => option instanceof Flag));
  }
  return flags;
}

export function commandPath(command: Command): string {
  const names: string[] = [];
  for (let each: Command | null = command; each !== null; each = each.parent) names.unshift(each.name());
  return names.join(' ');
}

function groupTexts(command: Command): string[] {
  const width = Math.max(11, ...command.commands.map((child) => child.name().length));
  const groups = new Map<string, string[]>();
  for (const child of command.commands) {
    const group = child.helpGroup() || 'Available Commands:';
    const lines = groups.get(group) ?? [];
    lines.push(`  ${child.name().padEnd(width)} ${child.summary()}\n`);
    groups.set(group, lines);
  }
  return [...groups].map(([group, lines]) => `${group}\n${lines.sort().join('')}`);
}

/** pflag's FlagUsages: sorted by name, types aligned with the texts after them. */
export function flagLines(flags: readonly Flag[], commandName: string | null): string {
  const rows = flags.map((flag) => {
    const type = flag.type === 'bool' ? '' : ` ${flag.type}`;
    const short = flag.short === undefined ? '    ' : `${flag.short}, `;
    const shown = flag.shownDefault === undefined ? '' : ` (default ${flag.shownDefault})`;
    return { name: flag.name(), left: `  ${short}--${flag.name()}${type}`, right: `${flag.description}${shown}` };
  });
  if (commandName !== null) rows.push({ name: 'help', left: '  -h, --help', right: `help for ${commandName}` });
  rows.sort((a, b) => (a.name < b.name ? -1 : 1));
  const width = Math.max(...rows.map((row) => row.left.length));
  return rows.map((row) => `${row.left.padEnd(width)}   ${row.right}\n`).join('');
}
