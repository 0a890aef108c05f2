// A command line read by the rules of cobra and pflag: words may stand before and after flags, a command is known by any prefix
// that is its own, bools take a value only after "=", and the errors are cobra's. One difference: cobra prints the help of a
// group whose subcommand it does not know and ends well; here that is an error, because nothing was done.

import { textOf } from './byte-text.ts';
import type { Command } from './command.ts';
import { ExitCode, ExitError } from './exit.ts';
import type { Flag } from './flag.ts';
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

/** What to run on which words, its flags set; or a command whose help was asked for. */
export type Reading = { readonly command: Command; readonly words: string[] } | { readonly help: Command };

export function readCommandLine(program: Command, argumentWords: readonly string[]): Reading {
  const { command, rest } = findCommand(program, argumentWords);
  if (command.parent === program && command.name === 'help') return { help: helpTopic(program, rest.words) };
  const { words, isHelp } = readFlags(command, rest.all);
  if (isHelp) return { help: command };
  if (command.children.length === 0) return { command, words };
  if (words.length === 0 || words[0] === 'help') return { help: command };
  throw new CommandLineError(command, `unknown command ${quoted(words[0]!)} for "${command.path}"`, true);
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
  const exact = command.children.find((child) => child.name === word);
  if (exact !== undefined) return exact;
  const matches = command.children.filter((child) => child.name.startsWith(word));
  return matches.length === 1 && word !== '' ? matches[0]! : null;
}

function findFlag(command: Command, isIt: (flag: Flag) => boolean): Flag | undefined {
  for (const each of command.lineage()) {
    const flag = each.flags.find(isIt);
    if (flag !== undefined) return flag;
  }
  return undefined;
}

function longFlag(command: Command, name: string): Flag | 'help' | undefined {
  return name === 'help' ? 'help' : findFlag(command, (flag) => flag.name === name);
}

function shortFlag(command: Command, letter: string): Flag | 'help' | undefined {
  return letter === 'h' ? 'help' : findFlag(command, (flag) => flag.short === letter);
}

/** pflag's Parse over what is left when the command's names are out. */
function readFlags(command: Command, all: readonly string[]): { words: string[]; isHelp: boolean } {
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
    const error = flag.give(value, 'command line');
    if (error !== null) this.#fail(`invalid argument ${quoted(value)} for "${flag.display}" flag: ${error}`);
  }
}

/** Reads and runs; prints help to `print` when that is what was asked. */
export async function runCommandLine(
  program: Command,
  argumentWords: readonly string[],
  print: (text: string) => void,
): Promise<void> {
  const reading = readCommandLine(program, argumentWords);
  if ('help' in reading) print(usageText(reading.help, true));
  else await reading.command.run(reading.words);
}
