// The words of a script's command, and configuration changes written as words. The commands are in interaction.ts.

import { type ConfChangeSingle, ConfChangeTransition, ConfChangeType, type ConfChangeV2, NO_BYTES } from './types.ts';

const OPERATIONS: Readonly<Record<string, ConfChangeType>> = {
  v: ConfChangeType.addNode,
  l: ConfChangeType.addLearnerNode,
  r: ConfChangeType.removeNode,
  u: ConfChangeType.updateNode,
};

/** 'v4 l5 implicit' → the change. Null when it can't be read. */
export function parseConfChange(text: string): ConfChangeV2 | null {
  let transition: ConfChangeTransition = ConfChangeTransition.auto;
  const changes: ConfChangeSingle[] = [];
  for (const word of text.split(' ').filter((one) => one !== '')) {
    if (word === 'implicit') transition = ConfChangeTransition.jointImplicit;
    else if (word === 'explicit') transition = ConfChangeTransition.jointExplicit;
    else {
      const type = OPERATIONS[word[0]!];
      if (type === undefined || !/^\d+$/.test(word.slice(1))) return null;
      changes.push({ type, nodeId: BigInt(word.slice(1)) });
    }
  }
  return { transition, changes, context: NO_BYTES };
}

/** The words of a command: plain ones, `key=value` ones. */
export class Words {
  readonly plain: string[] = [];
  readonly #options = new Map<string, string>();

  constructor(line: string) {
    for (const word of line.split(/\s+/).filter((one) => one !== '')) {
      const equals = word.indexOf('=');
      if (equals < 0) this.plain.push(word);
      else this.#options.set(word.slice(0, equals), word.slice(equals + 1));
    }
  }

  option(key: string): string | undefined {
    return this.#options.get(key);
  }

  count(key: string, otherwise: number): number {
    return Number(this.#options.get(key) ?? otherwise);
  }

  ids(key: string): bigint[] {
    return (this.#options.get(key) ?? '').split(',').filter(Boolean).map(BigInt);
  }

  /** Removes the word; true if it was there. */
  flag(name: string): boolean {
    const at = this.plain.indexOf(name);
    if (at >= 0) this.plain.splice(at, 1);
    return at >= 0;
  }
}
