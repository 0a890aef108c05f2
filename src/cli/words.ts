// A typed line as words: separated by spaces, "double-quoted" with Go's escapes, 'single-quoted' as they are. As etcdctl's
// Argify, which txn and watch -i read their lines with.

import { unquote } from './byte-text.ts';
import { ExitCode, ExitError } from './exit.ts';

const word: RegExp = /"(?:[^"\\]|\\.)*"|'[^']*'|[^'"\s]\S*[^'"\s]?/g;

export function splitWords(line: string): string[] {
  return (line.match(word) ?? []).map((text) => {
    if (text[0] === "'") return text.slice(1, -1);
    if (text[0] !== '"') return text;
    const plain = unquote(text);
    if (plain === null) throw new ExitError(ExitCode.invalidInput, 'invalid syntax');
    return plain;
  });
}
