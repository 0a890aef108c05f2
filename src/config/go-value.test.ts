// Goal: texts are read and printed as Go reads and prints them. Method: tables of inputs with what Go 1.26 answers.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  formatDuration,
  goQuote,
  humanBytes,
  parseBoolean,
  parseDuration,
  parseInteger,
  parseUnsigned,
} from './go-value.ts';

describe('go values', () => {
  it('reads integers in base 0', () => {
    const rows: [string, bigint | string][] = [
      ['0', 0n],
      ['42', 42n],
      ['+42', 42n],
      ['-42', -42n],
      ['0x1F', 31n],
      ['-0x10', -16n],
      ['0b101', 5n],
      ['0o17', 15n],
      ['017', 15n],
      ['1_000', 1000n],
      ['0x_ff', 255n],
      ['9223372036854775807', 9223372036854775807n],
      ['-9223372036854775808', -9223372036854775808n],
      ['9223372036854775808', 'value out of range'],
      ['', 'parse error'],
      ['-', 'parse error'],
      ['08', 'parse error'],
      ['1__0', 'parse error'],
      ['_1', 'parse error'],
      ['1_', 'parse error'],
      ['16MB', 'parse error'],
      ['1.5', 'parse error'],
      [' 1', 'parse error'],
    ];
    for (const [text, expected] of rows) {
      const parsed = parseInteger(text, 64);
      assert.equal(parsed.ok ? parsed.value : parsed.error, expected, text);
    }
    assert.deepEqual(parseUnsigned('-1', 64), { ok: false, error: 'parse error' });
    assert.deepEqual(parseUnsigned('+1', 64), { ok: false, error: 'parse error' });
    assert.deepEqual(parseUnsigned('18446744073709551616', 64), { ok: false, error: 'value out of range' });
    assert.deepEqual(parseUnsigned('4294967296', 32), { ok: false, error: 'value out of range' });
    assert.deepEqual(parseUnsigned('4294967295', 32), { ok: true, value: 4294967295n });
  });

  it('reads booleans', () => {
    for (const text of ['1', 't', 'T', 'true', 'TRUE', 'True'])
      assert.deepEqual(parseBoolean(text), { ok: true, value: true });
    for (const text of ['0', 'f', 'F', 'false', 'FALSE', 'False'])
      assert.deepEqual(parseBoolean(text), { ok: true, value: false });
    for (const text of ['', 'yes', 'tRUE', '2'])
      assert.deepEqual(parseBoolean(text), { ok: false, error: 'parse error' });
  });

  it('reads and prints durations', () => {
    const rows: [string, bigint, string][] = [
      ['0', 0n, '0s'],
      ['1h2m3s', 3_723_000_000_000n, '1h2m3s'],
      ['100ms', 100_000_000n, '100ms'],
      ['1.5h', 5_400_000_000_000n, '1h30m0s'],
      ['2h', 7_200_000_000_000n, '2h0m0s'],
      ['1m', 60_000_000_000n, '1m0s'],
      ['-5s', -5_000_000_000n, '-5s'],
      ['.5s', 500_000_000n, '500ms'],
      ['1.s', 1_000_000_000n, '1s'],
      ['1us', 1000n, '1µs'],
      ['1500ns', 1500n, '1.5µs'],
      ['1s1ns', 1_000_000_001n, '1.000000001s'],
      ['2562047h47m16.854775807s', 9223372036854775807n, '2562047h47m16.854775807s'],
    ];
    for (const [text, ns, printed] of rows) {
      assert.deepEqual(parseDuration(text), { ok: true, value: ns }, text);
      assert.equal(formatDuration(ns), printed);
    }
    const errors: [string, string][] = [
      ['', 'time: invalid duration ""'],
      ['5', 'time: missing unit in duration "5"'],
      ['foo', 'time: invalid duration "foo"'],
      ['5x', 'time: unknown unit "x" in duration "5x"'],
      ['.s', 'time: invalid duration ".s"'],
      ['9999999999h', 'time: invalid duration "9999999999h"'],
    ];
    for (const [text, error] of errors) assert.deepEqual(parseDuration(text), { ok: false, error }, text);
  });

  it('quotes and counts bytes', () => {
    assert.equal(goQuote('a"b\\c\n\u0001é\u200b😀'), '"a\\"b\\\\c\\n\\x01é\\u200b😀"');
    assert.equal(humanBytes(2147483648), '2.1 GB');
    assert.equal(humanBytes(10485760), '10 MB');
    assert.equal(humanBytes(8589934592), '8.6 GB');
    assert.equal(humanBytes(9_000_000_000), '9.0 GB');
    assert.equal(humanBytes(7), '7 B');
  });
});
