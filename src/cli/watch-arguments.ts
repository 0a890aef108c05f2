// The words of a watch command taken apart: key, end of the range, and after "--" a program to run for each event. Key and end
// may come from the environment instead, but not from both. Follows etcdctl's rules and error texts.
//
//   watch foo bar -- echo hi        ETCDCTL_WATCH_KEY=foo watch -- echo hi        (interactive) watch foo --rev 3

import { badArguments } from './exit.ts';

export interface WatchArguments {
  readonly words: readonly string[];
  readonly program: readonly string[];
}

const texts = {
  count: 'bad number of arguments',
  conflict: 'bad number of arguments (found conflicting environment key)',
  separator: 'bad number of arguments (found separator --, but no commands)',
} as const;

/**
 * `rawWords`: what follows the command's name, flags and "--" included; `words`: the same without flags and "--". An
 * interactive line that has no key of its own is refused even if a program follows, as etcdctl does.
 */
export function watchArguments(
  rawWords: readonly string[],
  words: readonly string[],
  fromEnvironment: readonly string[],
): WatchArguments {
  const separator = rawWords.indexOf('--');
  const isKeyGiven = fromEnvironment.length > 0;
  if (separator >= 0 && separator === rawWords.length - 1) throw badArguments(texts.separator);
  const program = separator < 0 ? [] : rawWords.slice(separator + 1);
  const own = words.slice(0, words.length - program.length);
  if (isKeyGiven && own.length > 0) throw badArguments(texts.conflict);
  const all = [...fromEnvironment, ...own];
  if (all.length === 0) throw badArguments(texts.count);
  return { words: all, program };
}
