// A command line read by the rules of cobra and pflag: words may stand before and after flags, a command is known by any prefix
// that is its own, bools take a value only after "=", and the errors are cobra's. So is what cobra forgives: a group whose
// subcommand it does not know shows its help and ends well, and so does a help topic that there is not, on stderr.

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

/** What to run on which words, its flags set; a command whose help was asked for; or the topic of which there is no help. */
export type Reading =
  | { readonly command: Command; readonly words: string[] }
  | { readonly help: Command }
  | { readonly unknownTopic: readonly string[] };

export function readCommandLine(program: Command, argumentWords: readonly string[]): Reading {
  const { command, rest, unknown } = findCommand(program, argumentWords);
  if (unknown !== null) {
    throw new CommandLineError(program, `unknown command ${quoted(unknown)} for "${program.path}"`, true);
  }
  const words = readFlags(command, rest);
  if (command.help.value === true) return { help: command };
  if (command.children.length > 0) return { help: command };
  return command.parent === program && command.name === 'help' ? helpTopic(program, words) : { command, words };
}

function quoted(word: string): string {
  return JSON.stringify(textOf(word));
}

function helpTopic(program: Command, words: readonly string[]): Reading {
  const { command, unknown } = findCommand(program, words);
  return unknown === null ? { help: command } : { unknownTopic: words };
}

interface Found {
  readonly command: Command;
  /** Everything but the command's names. */
  readonly rest: string[];
  /** What stands where the program's command should, and is none. */
  readonly unknown: string | null;
}

/** Goes down the tree by the words that are no flags. */
function findCommand(program: Command, argumentWords: readonly string[]): Found {
  let command = program;
  let rest = [...argumentWords];
  for (;;) {
    const index = firstWord(command, rest);
    if (index === null) return { command, rest, unknown: null };
    const next = childByPrefix(command, rest[index]!);
    if (next === null) return { command, rest, unknown: command === program ? rest[index]! : null };
    command = next;
    rest = [...rest.slice(0, index), ...rest.slice(index + 1)];
  }
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
    } else if (word !== '') return index;
  }
  return null;
}

/** A flag that is not known here may be a subcommand's: pflag takes the next word for its value. */
function takesValue(flag: Flag | undefined): boolean {
  return flag?.type !== 'bool';
}

function childByPrefix(command: Command, word: string): Command | null {
  const exact = command.children.find((child) => child.name === word);
  if (exact !== undefined) return exact;
  const matches = command.children.filter((child) => child.name.startsWith(word));
  return matches.length === 1 && word !== '' ? matches[0]! : null;
}

function findFlag(command: Command, isIt: (flag: Flag) => boolean): Flag | undefined {
  if (isIt(command.help)) return command.help;
  for (const each of command.lineage()) {
    const flag = each.flags.find(isIt);
    if (flag !== undefined) return flag;
  }
  return undefined;
}

function longFlag(command: Command, name: string): Flag | undefined {
  return findFlag(command, (flag) => flag.name === name);
}

function shortFlag(command: Command, letter: string): Flag | undefined {
  return findFlag(command, (flag) => flag.short === letter);
}

/** pflag's Parse over what is left when the command's names are out: sets the flags, returns the words. */
function readFlags(command: Command, all: readonly string[]): string[] {
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
  }
  return reader.words;
}

class FlagReader {
  readonly words: string[] = [];
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

/** Reads and runs; prints help to `print` when that is what was asked, to `printError` what it knows instead of it. */
export async function runCommandLine(
  program: Command,
  argumentWords: readonly string[],
  print: (text: string) => void,
  printError: (text: string) => void,
): Promise<void> {
  const reading = readCommandLine(program, argumentWords);
  if ('command' in reading) await reading.command.run(reading.words);
  else if ('help' in reading) print(usageText(reading.help, true));
  else {
    const topic = reading.unknownTopic.map((word) => `\`${textOf(word)}\``).join(' ');
    printError(`Unknown help topic [${topic}]\n${usageText(program, false)}`);
  }
}
