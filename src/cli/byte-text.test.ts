// Goal: any bytes go through the command line unharmed and are quoted as Go quotes them. Method: cases from Go's strconv, and
// random bytes there and back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import { byteString, bytesOf, quoteBytes, textOf, trimSpace, unquote } from './byte-text.ts';

test('text becomes bytes and text again', () => {
  assert.deepEqual(bytesOf(byteString('é€😀')), Buffer.from('é€😀'));
  assert.equal(textOf(byteString('é€😀')), 'é€😀');
});

test('quoting: printable runes as they are, the rest escaped, broken UTF-8 byte by byte', () => {
  const cases: readonly (readonly [Buffer, string])[] = [
    [Buffer.from('a"b\\c\n\t\x00\x7f'), '"a\\"b\\\\c\\n\\t\\x00\\x7f"'],
    [Buffer.from('é\u2028\u00a0😀'), '"é\\u2028\\u00a0😀"'],
    [Buffer.from([0xff, 0x61, 0xc3]), '"\\xffa\\xc3"'],
    // Overlong, a surrogate, above the last code point, cut short.
    [Buffer.from([0xc0, 0x80, 0xed, 0xa0, 0x80]), '"\\xc0\\x80\\xed\\xa0\\x80"'],
    [Buffer.from([0xf4, 0x90, 0x80, 0x80, 0xe2, 0x82]), '"\\xf4\\x90\\x80\\x80\\xe2\\x82"'],
    [Buffer.alloc(0), '""'],
  ];
  for (const [bytes, quoted] of cases) assert.equal(quoteBytes(bytes), quoted);
});

test('what was quoted is unquoted', () => {
  const random = new SeededRandom(7);
  for (let round = 0; round < 2000; round++) {
    const bytes = Buffer.from(Array.from({ length: random.below(12) }, () => random.below(256)));
    const back = unquote(byteString(quoteBytes(bytes)));
    assert.notEqual(back, null);
    assert.deepEqual(bytesOf(back!), bytes, quoteBytes(bytes));
  }
});

test('unquoting refuses what Go refuses', () => {
  assert.equal(unquote('"\\101\\u00e9\\x41"'), byteString('AéA'));
  assert.equal(unquote('`a\\n`'), 'a\\n');
  for (const text of [
    '"',
    '""a',
    'a',
    "'a'",
    '"\\q"',
    '"\\x4"',
    '"\\400"',
    '"\\\'"',
    '"\\ud800"',
    '"a"b"',
    '"a\nb"',
    '"\\U00110000"',
  ]) {
    assert.equal(unquote(text), null, text);
  }
});

test('trimming takes ASCII spaces only: a byte of a rune is none', () => {
  assert.equal(trimSpace(' \t a\xa0 \r\n'), 'a\xa0');
});
