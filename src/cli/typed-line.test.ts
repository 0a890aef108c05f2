// Goal: what is typed into txn and watch -i is read as etcdctl reads it. Method: the lines of its own tests and what Go's Sscanf
// makes of odd ones.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCompare } from './compare.ts';
import { ExitError } from './exit.ts';
import { LineReader } from './line-reader.ts';
import { parseOperation } from './txn.ts';
import { watchArguments } from './watch-arguments.ts';
import { splitWords } from './words.ts';

test('words of a line', () => {
  assert.deepEqual(splitWords('put key "a b" \'c "d"\' e\\f'), ['put', 'key', 'a b', 'c "d"', 'e\\f']);
  assert.deepEqual(splitWords('get "\\x41\\n" \'\' ""'), ['get', 'A\n', '', '']);
  assert.deepEqual(splitWords('   '), []);
  assert.throws(() => splitWords('"\\q"'), /invalid syntax/);
});

test('comparisons', () => {
  const key = Buffer.from('k');
  assert.deepEqual(parseCompare('mod("k") > "5"'), { result: 1, target: 2, key, modRevision: 5 });
  assert.deepEqual(parseCompare('ver(`k`)  !=  "0"'), { result: 3, target: 0, key, version: 0 });
  assert.deepEqual(parseCompare('c("k") = "1" and more'), { result: 0, target: 1, key, createRevision: 1 });
  assert.deepEqual(parseCompare('val("k") < ""'), { result: 2, target: 3, key, value: Buffer.alloc(0) });
  assert.deepEqual(parseCompare('lease("k") = "7f"'), { result: 0, target: 4, key, lease: 0x7fn });
  assert.deepEqual(parseCompare('m("k") = "9223372036854775807"').modRevision, Number.MAX_SAFE_INTEGER);
  const errors: Readonly<Record<string, string>> = {
    mod: 'malformed comparison: mod',
    'mod(k) = "1"': 'malformed comparison: mod(k) = "1"; got mod("")  ""',
    'mod("k")= "1"': 'malformed comparison: mod("k")= "1"; got mod("k")  ""',
    'mod("k") = 1': 'malformed comparison: mod("k") = 1; got mod("k") = ""',
    'foo("k") = "1"': 'malformed comparison: foo("k") = "1" (unknown target foo)',
    'mod("k") == "1"': 'malformed comparison: mod("k") == "1" (unknown operator ==)',
    'mod("k") = "x"': 'invalid txn compare request: mod("k") = "x"',
    'lease("k") = "zz"': 'invalid txn compare request: lease("k") = "zz"',
  };
  for (const [line, message] of Object.entries(errors)) assert.throws(() => parseCompare(line), { message }, line);
});

test('operations of a txn', async () => {
  const put = await parseOperation('put k "a b" --prev-kv --lease=10');
  assert.deepEqual(
    [put.requestPut?.value?.toString(), put.requestPut?.lease, put.requestPut?.prevKv],
    ['a b', 16n, true],
  );
  const get = await parseOperation('get --prefix a\xff --order descend --sort-by modify');
  assert.deepEqual(get.requestRange?.rangeEnd, Buffer.from('b'));
  assert.deepEqual([get.requestRange?.sortOrder, get.requestRange?.sortTarget], [2, 3]);
  const del = await parseOperation("del '' --from-key");
  assert.deepEqual(del.requestDeleteRange?.key, Buffer.from([0]));
  for (const line of ['get', 'foo bar', 'help get', 'put a b --nope']) {
    await assert.rejects(
      parseOperation(line),
      (error: unknown) => error instanceof ExitError && error.code === 3,
      line,
    );
  }
  await assert.rejects(parseOperation('put k'), /put command needs 1 argument/);
});

test('words of a watch', () => {
  const read = (raw: string, words: string, environment: string): unknown => {
    const list = (text: string): string[] => (text === '' ? [] : text.split(' '));
    try {
      const { words: own, program } = watchArguments(list(raw), list(words), list(environment));
      return [own.join(' '), program.join(' ')];
    } catch (error) {
      return (error as Error).message;
    }
  };
  assert.deepEqual(read('foo bar', 'foo bar', ''), ['foo bar', '']);
  assert.deepEqual(read('foo --rev 1 bar -- echo hi', 'foo bar echo hi', ''), ['foo bar', 'echo hi']);
  assert.deepEqual(read('-- echo hi', 'echo hi', 'foo bar'), ['foo bar', 'echo hi']);
  assert.deepEqual(read('--rev 1', '', 'foo'), ['foo', '']);
  assert.deepEqual(read('foo -- echo foo', 'foo echo foo', ''), ['foo', 'echo foo']);
  assert.equal(read('', '', ''), 'bad number of arguments');
  assert.equal(read('-- echo', 'echo', ''), 'bad number of arguments');
  assert.equal(read('foo --', 'foo', ''), 'bad number of arguments (found separator --, but no commands)');
  assert.equal(read('foo', 'foo', 'bar'), 'bad number of arguments (found conflicting environment key)');
  assert.equal(read('foo -- echo', 'foo echo', 'bar'), 'bad number of arguments (found conflicting environment key)');
});

test('lines come one by one; what has no newline at the end is none', async () => {
  async function* input(): AsyncGenerator<Buffer> {
    yield Buffer.from('a\n\nb');
    yield Buffer.from('c\nd');
  }
  const lines = new LineReader(input());
  assert.deepEqual(
    [await lines.next(), await lines.next(), await lines.next(), await lines.next()],
    ['a', '', 'bc', null],
  );
});
