// Goal: values of flags and their errors are pflag's. Method: the texts that etcdctl prints.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FlagType, parseFlag, parseInt64, parseUint64 } from './flag.ts';

test('values', () => {
  const cases: readonly (readonly [FlagType, string, unknown])[] = [
    ['string', '', ''],
    ['bool', 'T', true],
    ['bool', '0', false],
    ['int', '0x10', 16],
    ['int', '-5', -5],
    ['int', '1_000', 1000],
    ['int', '9223372036854775807', Number.MAX_SAFE_INTEGER],
    ['int', '-9223372036854775808', -Number.MAX_SAFE_INTEGER],
    ['uint', '18446744073709551615', Number.MAX_SAFE_INTEGER],
    ['duration', '1m0.5s', 60_500],
    ['duration', '0', 0],
    ['strings', 'a,b,,c', ['a', 'b', '', 'c']],
    ['strings', '"a,b",c', ['a,b', 'c']],
    ['strings', '', []],
  ];
  for (const [type, text, value] of cases)
    assert.deepEqual(parseFlag(type, text), { ok: true, value }, `${type} ${text}`);
});

test('errors', () => {
  const cases: readonly (readonly [FlagType, string, string])[] = [
    ['bool', 'yes', 'strconv.ParseBool: parsing "yes": invalid syntax'],
    ['int', 'abc', 'strconv.ParseInt: parsing "abc": invalid syntax'],
    ['int', '9223372036854775808', 'strconv.ParseInt: parsing "9223372036854775808": value out of range'],
    ['uint', '-1', 'strconv.ParseUint: parsing "-1": invalid syntax'],
    ['duration', '5', 'time: missing unit in duration "5"'],
    ['strings', 'a"b', 'parse error on line 1: bare " in non-quoted-field'],
  ];
  for (const [type, text, error] of cases) assert.deepEqual(parseFlag(type, text), { ok: false, error });
});

test('whole numbers of words', () => {
  assert.deepEqual(parseInt64('-7f', 16), { ok: true, value: -0x7fn });
  assert.deepEqual(parseInt64('+12', 10), { ok: true, value: 12n });
  assert.deepEqual(parseUint64('ffffffffffffffff', 16), { ok: true, value: 2n ** 64n - 1n });
  for (const [text, base] of [
    ['0x1', 16],
    ['a', 10],
    ['', 10],
    ['1 ', 10],
    ['-', 16],
  ] as const) {
    assert.equal(parseInt64(text, base).ok, false, text);
  }
  assert.deepEqual(parseInt64('8000000000000000', 16), {
    ok: false,
    error: 'strconv.ParseInt: parsing "8000000000000000": value out of range',
  });
  assert.equal(parseUint64('-1', 10).ok, false);
});
