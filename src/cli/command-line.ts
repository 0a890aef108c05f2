// A command line read by the rules of cobra and pflag, then run by commander: words may stand before and after flags, a command
// is known by any prefix that is its own, bools take a value only after "=", and the errors are cobra's. commander holds the
// tree of commands and flags, their values and what to run; it is handed the words in one unambiguous form:
//
//   [command...] --flag=value... -- word...

import { Command } from 'commander';
import { textOf } from './byte-text.ts';
import { ExitCode, ExitError } from './exit.ts';
import { Flag, parseFlag } from './flag.ts';
import { usageText } from './usage.ts';

/** A command line that cannot be read. Printed with the usage of `command`, or with a hint at it. */
export class CommandLineError extends ExitError {
  override readonly name: string = 'CommandLineError';
  readonly command: Command;
  readonly isCommandUnknown: boolean;
  constructor(command: Command, message: string, isCommandUnknown = false) {
    super(ExitCode.error, message);
    this.command = command;
    this.isCommandUnknown = isCommandUnknown;
  }
}

/** Either the words for commander, or a command whose help was asked for. */
export type Reading = { readonly words: readonly string[] } | { readonly help: Command };

export function readCommandLine(program: Command, argumentWords: readonly string[]): Reading {
  const { command, rest } = findCommand(program, argumentWords);
  const path = pathOf(command, program);
  if (command.parent === program && command.name() === 'help') return { help: helpTopic(program, rest.words) };
  const { flags, words, isHelp } = readFlags(command, rest.all);
  if (isHelp) return { help: command };
  if (command.commands.length > 0) {
    if (command !== program || words.length === 0) return { help: command };
    throw new CommandLineError(program, `unknown command ${quoted(words[0]!)} for "${program.name()}"`, true);
  }
  return { words: [...path, ...flags, '--', ...words] };
}

function quoted(word: string): string {
  return JSON.stringify(textOf(word));
}

function helpTopic(program: Command, words: readonly string[]): Command {
  const { command, rest } = findCommand(program, words);
  if (rest.words.length > 0) {
    const topic = words.map((word) => quoted(word)).join(' ');
    throw new CommandLineError(program, `unknown help topic [${topic}]`, true);
  }
  return command;
}

interface Rest {
  /** Everything but the command's names. */
  readonly all: string[];
  /** Without flags. */
  readonly words: string[];
}

/** Goes down the tree by the words that are no flags. */
function findCommand(program: Command, argumentWords: readonly string[]): { command: Command; rest: Rest } {
  let command = program;
  let all = [...argumentWords];
  for (;;) {
    const index = firstWord(command, all);
    if (index === null) break;
    const next = childByPrefix(command, all[index]!);
    if (next === null) break;
    command = next;
    all = [...all.slice(0, index), ...all.slice(index + 1)];
  }
  return { command, rest: { all, words: all.filter((word) => !word.startsWith('-')) } };
}

/** Index of the first word that is neither a flag nor, as far as this command knows, a flag's value. */
function firstWord(command: Command, all: readonly string[]): number | null {
  for (let index = 0; index < all.length; index++) {
    const word = all[index]!;
    if (word === '--') return null;
    if (word.startsWith('--')) {
      if (!word.includes('=') && takesValue(longFlag(command, word.slice(2)))) index++;
    } else if (word.length > 1 && word[0] === '-') {
      if (word.length === 2 && takesValue(shortFlag(command, word[1]!))) index++;
    } else return index;
  }
  return null;
}

/** A flag that is not known here may be a subcommand's: pflag takes the next word for its value. */
function takesValue(flag: Flag | 'help' | undefined): boolean {
  return flag !== 'help' && flag?.type !== 'bool';
}

function childByPrefix(command: Command, word: string): Command | null {
  const exact = command.commands.find((child) => child.name() === word);
  if (exact !== undefined) return exact;
  const matches = command.commands.filter((child) => child.name().startsWith(word));
  return matches.length === 1 && word !== '' ? matches[0]! : null;
}

function pathOf(command: Command, program: Command): string[] {
  const path: string[] = [];
  for (let each: Command | null = command; each !== null && each !== program; each = each.parent)
    path.unshift(each.name());
  return path;
}

function* flagsOf(command: Command): Generator<Flag> {
  for (let each: Command | null = command; each !== null; each = each.parent) {
    for (const option of each.options) if (option instanceof Flag) yield option;
  }
}

function longFlag(command: Command, name: string): Flag | 'help' | undefined {
  if (name === 'help') return 'help';
  for (const flag of flagsOf(command)) if (flag.name() === name) return flag;
  return undefined;
}

function shortFlag(command: Command, letter: string): Flag | 'help' | undefined {
  if (letter === 'h') return 'help';
  for (const flag of flagsOf(command)) if (flag.short === `-${letter}`) return flag;
  return undefined;
}

/** pflag's Parse over what is left when the command's names are out. */
function readFlags(command: Command, all: readonly string[]): { flags: string[]; words: string[]; isHelp: boolean } {
  const reader = new FlagReader(command);
  for (let index = 0; index < all.length; index++) {
    const word = all[index]!;
    if (word === '--') {
      reader.words.push(...all.slice(index + 1));
      break;
    }
    if (word.length < 2 || word[0] !== '-') reader.words.push(word);
    else if (word.startsWith('--')) index += reader.readLong(word.slice(2), all[index + 1]);
    else index += reader.readShort(word.slice(1), all[index + 1]);
    if (reader.isHelp) break;
  }
  return reader;
}

class FlagReader {
  readonly flags: string[] = [];
  readonly words: string[] = [];
  isHelp = false;
  readonly #command: Command;

  constructor(command: Command) {
    this.#command = command;
  }

  #fail(message: string): never {
    throw new CommandLineError(this.#command, message);
  }

  /** Returns how many of the following words it took. */
  readLong(text: string, next: string | undefined): 0 | 1 {
    const equals = text.indexOf('=');
    const name = equals < 0 ? text : text.slice(0, equals);
    if (name === '' || name[0] === '-') this.#fail(`bad flag syntax: --${textOf(text)}`);
    const flag = longFlag(this.#command, name);
    if (flag === undefined) this.#fail(`unknown flag: --${textOf(name)}`);
    if (flag === 'help') {
      this.isHelp = true;
      return 0;
    }
    if (equals >= 0) this.#set(flag, text.slice(equals + 1));
    else if (flag.type === 'bool') this.#set(flag, 'true');
    else if (next === undefined) this.#fail(`flag needs an argument: --${name}`);
    else {
      this.#set(flag, next);
      return 1;
    }
    return 0;
  }

  /** One or several letters, the last of which may take a value: -i, -wjson, -w=json, -w json. */
  readShort(text: string, next: string | undefined): 0 | 1 {
    for (let index = 0; index < text.length; index++) {
      const letter = text[index]!;
      const flag = shortFlag(this.#command, letter);
      if (flag === undefined) this.#fail(`unknown shorthand flag: '${textOf(letter)}' in -${textOf(text)}`);
      if (flag === 'help') {
        this.isHelp = true;
        return 0;
      }
      const after = text.slice(index + 1);
      if (after[0] === '=') {
        this.#set(flag, after.slice(1));
        return 0;
      }
      if (flag.type === 'bool') this.#set(flag, 'true');
      else if (after !== '') {
        this.#set(flag, after);
        return 0;
      } else if (next === undefined) this.#fail(`flag needs an argument: '${letter}' in -${textOf(text)}`);
      else {
        this.#set(flag, next);
        return 1;
      }
    }
    return 0;
  }

  #set(flag: Flag, value: string): void {
    const parsed = parseFlag(flag.type, value);
    if (!parsed.ok) this.#fail(`invalid argument ${quoted(value)} for "${flag.display}" flag: ${parsed.error}`);
    this.flags.push(`--${flag.name()}=${value}`);
  }
}

/** A command without commander's own help, which cobra's replaces, and without its checks, which were made here. */
export function newCommand(name: string): Command {
  return new Command(name)
    .helpOption(false)
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeErr: () => {}, writeOut: () => {} });
}

/** What runs when a command line names the command: its words without flags, and all flags that it knows. */
export type Run<Flags> = (words: string[], flags: Flags) => Promise<void>;

export interface CommandDetails<Flags> {
  /** Name first: "get [options] <key> [range_end]". */
  readonly use: string;
  readonly short: string;
  readonly long?: string;
  readonly group?: string;
  readonly flags?: readonly Flag[];
  /** Absent for a command that only has subcommands. */
  readonly run?: Run<Flags>;
}

export function addCommand<Flags>(parent: Command, details: CommandDetails<Flags>): Command {
  const command = newCommand(details.use.split(' ')[0]!);
  command
    .summary(details.short)
    .description(details.long ?? details.short)
    .usage(details.use);
  if (details.group !== undefined) command.helpGroup(details.group);
  for (const flag of details.flags ?? []) command.addOption(flag);
  const run = details.run;
  if (run !== undefined) {
    command
      .argument('[words...]')
      .action((words: string[], _options: unknown, self: Command) => run(words, self.optsWithGlobals() as Flags));
  }
  parent.addCommand(command);
  return command;
}

/** Reads and runs; prints help to `print` when that is what was asked. */
export async function runCommandLine(
  program: Command,
  argumentWords: readonly string[],
  print: (text: string) => void,
): Promise<void> {
  const reading = readCommandLine(program, argumentWords);
  if ('help' in reading) print(`${usageText(reading.help, true)}`);
  else await program.parseAsync([...reading.words], { from: 'user' });
}
