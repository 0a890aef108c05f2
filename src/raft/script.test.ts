// Goal: whole groups behave as Raft and etcd-io/raft say, in cases that one can read. Method: each file of testdata/ is
// a script of commands (interaction.ts) with the transcript that they must print. REWRITE=1 writes the transcripts
// anew: read the difference before it is committed.
//
//   # a comment
//   command words...
//   ----
//   what it prints, up to an empty line

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Interaction } from './interaction.ts';

const directory = new URL('./testdata/', import.meta.url);
const rewrite = process.env['REWRITE'] === '1';

/** The script with the transcripts that it prints now. */
function play(script: string): string {
  const interaction = new Interaction();
  const lines = script.split('\n');
  const output: string[] = [];
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!;
    if (line === '' || line.startsWith('#')) {
      output.push(line);
      continue;
    }
    // A command; its old transcript is skipped.
    if (lines[i + 1] === '----') {
      for (i++; i + 1 < lines.length && lines[i + 1] !== ''; ) i++;
    }
    output.push(line, '----', interaction.run(line));
    if (i + 1 < lines.length && lines[i + 1] !== '') output.push('');
  }
  return `${output.join('\n').trimEnd()}\n`;
}

for (const name of readdirSync(directory).filter((one) => one.endsWith('.txt'))) {
  test(name, () => {
    const file = new URL(name, directory);
    const script = readFileSync(file, 'utf8');
    const played = play(script);
    if (rewrite) writeFileSync(file, played);
    else assert.equal(played, script);
  });
}
