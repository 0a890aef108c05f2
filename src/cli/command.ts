// The tree of a program's commands: names, texts, flags and what runs. It knows no command line (command-line.ts reads one into
// it) and prints nothing (usage.ts does).

import { Flag, type FlagValue } from './flag.ts';

/** What runs when a command line names the command: its words without flags, and the values of all flags that it knows. */
export type Run<Flags> = (words: string[], flags: Flags) => Promise<void>;

export interface CommandDetails<Flags> {
  /** Name first: "get [options] <key> [range_end]". */
  readonly use: string;
  readonly short: string;
  readonly long?: string;
  /** The heading under which the program's usage lists it. */
  readonly group?: string;
  readonly flags?: readonly Flag[];
  /** Absent for a command that only has subcommands. */
  readonly run?: Run<Flags>;
}

type Action = (words: string[], command: Command) => Promise<void>;

export class Command {
  readonly name: string;
  readonly use: string;
  readonly short: string;
  readonly long: string;
  readonly group: string | null;
  readonly parent: Command | null;
  readonly children: Command[] = [];
  /** Its own; its subcommands take them too. */
  readonly flags: readonly Flag[];
  /** -h of this command alone; not among its values. */
  readonly help: Flag;
  readonly #action: Action | null;

  private constructor(parent: Command | null, details: Omit<CommandDetails<never>, 'run'>, action: Action | null) {
    this.parent = parent;
    this.name = details.use.split(' ')[0]!;
    this.use = details.use;
    this.short = details.short;
    this.long = details.long ?? details.short;
    this.group = details.group ?? null;
    this.flags = details.flags ?? [];
    this.help = new Flag('bool', 'help', `help for ${this.name}`, { short: 'h' });
    this.#action = action;
  }

  /** The root of a tree. */
  static program(name: string, description: string, flags: readonly Flag[] = []): Command {
    return new Command(null, { use: name, short: description, flags }, null);
  }

  /** `Flags` is the caller's word for what `flags` and those of the commands above hold, by camelCase name. */
  add<Flags>(details: CommandDetails<Flags>): Command {
    const { run } = details;
    const child = new Command(
      this,
      details,
      run === undefined ? null : (words, command) => run(words, command.values<Flags>()),
    );
    this.children.push(child);
    return child;
  }

  /** This command, then the one that it belongs to, up to the program. */
  *lineage(): Generator<Command, void, undefined> {
    for (let each: Command | null = this; each !== null; each = each.parent) yield each;
  }

  /** "keelsonctl lease grant" */
  get path(): string {
    return [...this.lineage()]
      .reverse()
      .map((command) => command.name)
      .join(' ');
  }

  /** What its flags and those above it hold now, by camelCase name. */
  values<Flags>(): Flags {
    const values: Record<string, FlagValue> = {};
    for (const command of this.lineage()) for (const flag of command.flags) values[flag.property] = flag.value;
    return values as Flags;
  }

  async run(words: string[]): Promise<void> {
    await this.#action?.(words, this);
  }
}
