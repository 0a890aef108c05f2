// Goal: command lines are read as cobra and pflag read them. Method: a small program; what a command is handed, or the error.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Command } from './command.ts';
import { CommandLineError, runCommandLine } from './command-line.ts';
import { Flag } from './flag.ts';

interface Flags {
  readonly endpoints: readonly string[];
  readonly limit: number;
  readonly all: boolean;
  readonly on: boolean;
  readonly writeOut: string;
}

async function run(line: string): Promise<unknown> {
  const program = Command.program('prog', 'A program.', [
    new Flag('strings', 'endpoints', 'addresses', { byDefault: ['default'] }),
    new Flag('string', 'write-out', 'format', { short: 'w', byDefault: 'simple' }),
  ]);
  let result: unknown = null;
  const details = {
    flags: [],
    run: async (words: string[], flags: Flags) => {
      const { endpoints, limit, all, on, writeOut } = flags;
      result = { words, endpoints, limit, all, on, writeOut };
    },
  };
  const flags = (): Flag[] => [
    new Flag('int', 'limit', 'how many'),
    new Flag('bool', 'all', 'all of them', { short: 'a' }),
    new Flag('bool', 'on', 'on', { byDefault: true }),
  ];
  program.add<Flags>({ ...details, use: 'get <key>', short: 'Gets', flags: flags() });
  const lease = program.add({ use: 'lease', short: 'Leases' });
  lease.add<Flags>({ ...details, use: 'list', short: 'Lists', flags: flags() });
  lease.add<Flags>({ ...details, use: 'level', short: 'Levels' });
  program.add({ use: 'help', short: 'Helps' });
  try {
    const print = (text: string): void => {
      result = text.split('\n')[0];
    };
    const printError = (text: string): void => {
      result = `stderr: ${text.split('\n').slice(0, 2).join(', ')}`;
    };
    await runCommandLine(program, line === '' ? [] : line.split(' '), print, printError);
  } catch (error) {
    assert.ok(error instanceof CommandLineError, String(error));
    return error.message;
  }
  return result;
}

const nothing = { words: [], endpoints: ['default'], limit: 0, all: false, on: true, writeOut: 'simple' };

test('words and flags in any order, values after = or as the next word', async () => {
  assert.deepEqual(await run('get a b'), { ...nothing, words: ['a', 'b'] });
  assert.deepEqual(await run('--endpoints x,y get --limit 5 a --endpoints z'), {
    ...nothing,
    words: ['a'],
    limit: 5,
    endpoints: ['x', 'y', 'z'],
  });
  assert.deepEqual(await run('get --limit=-5 -aw=json a'), {
    ...nothing,
    words: ['a'],
    limit: -5,
    all: true,
    writeOut: 'json',
  });
  assert.deepEqual(await run('get -wjson -w table'), { ...nothing, writeOut: 'table' });
  assert.deepEqual(await run('get --all=false --on=f x --all'), { ...nothing, words: ['x'], all: true, on: false });
  assert.deepEqual(await run('get --limit 5 -- --all -x'), {
    ...nothing,
    words: ['--all', '-x'],
    limit: 5,
  });
  assert.deepEqual(await run('-w json get -'), { ...nothing, words: ['-'], writeOut: 'json' });
});

test('commands by any prefix that is their own', async () => {
  assert.deepEqual(await run('g k'), { ...nothing, words: ['k'] });
  assert.deepEqual(await run('le li'), nothing);
  assert.deepEqual(await run('lease le x'), await run('lease level x'));
  assert.equal(await run('x'), 'unknown command "x" for "prog"');
  // Two begin so.
  assert.equal(await run('lease l'), 'Leases');
});

test('commands that do not exist: of the program an error before anything else, of a group its help', async () => {
  for (const line of ['nope', 'nope get k', 'nope --help', '--all nope nope --nope', '-w json nope']) {
    assert.equal(await run(line), 'unknown command "nope" for "prog"', line);
  }
  for (const line of ['lease nope', '-w json lease nope list --endpoints x', 'lease -- list', 'lease nope --help']) {
    assert.equal(await run(line), 'Leases', line);
  }
  // The program is a group too, when "--" hides what stands where a command should.
  assert.equal(await run('-- get k'), 'A program.');
  assert.equal(await run('lease nope --nope'), 'unknown flag: --nope');
});

test('help', async () => {
  for (const line of ['', '--help', '-h', 'help', '-w json']) assert.equal(await run(line), 'A program.', line);
  for (const line of ['get -h', 'get --help a', 'help get', 'get a -ah', 'help ge x', 'help -w json get'])
    assert.equal(await run(line), 'Gets', line);
  for (const line of ['lease', 'lease help', 'lease --help x', 'help lease', 'help lease nope', 'lease help list'])
    assert.equal(await run(line), 'Leases', line);
  for (const line of ['help help', 'help --help', 'help -h get']) assert.equal(await run(line), 'Helps', line);
  assert.deepEqual(await run('get a --help=false'), { ...nothing, words: ['a'] });
  assert.equal(await run('get --help --nope'), 'unknown flag: --nope', 'help is no reason to pass over what is wrong');
  assert.equal(await run('help --nope'), 'unknown flag: --nope');
  assert.equal(await run('help nope x'), 'stderr: Unknown help topic [`nope` `x`], Usage:');
});

test("errors are pflag's", async () => {
  const cases: Readonly<Record<string, string>> = {
    'get --nope': 'unknown flag: --nope',
    'get --nope=1': 'unknown flag: --nope',
    'get -x': "unknown shorthand flag: 'x' in -x",
    'get -ax': "unknown shorthand flag: 'x' in -ax",
    'get -5': "unknown shorthand flag: '5' in -5",
    'get --limit': 'flag needs an argument: --limit',
    'get -w': "flag needs an argument: 'w' in -w",
    'get --limit x': 'invalid argument "x" for "--limit" flag: strconv.ParseInt: parsing "x": invalid syntax',
    'get --all=x': 'invalid argument "x" for "-a, --all" flag: strconv.ParseBool: parsing "x": invalid syntax',
    'get ---x': 'bad flag syntax: ---x',
    'get --=x': 'bad flag syntax: --=x',
  };
  for (const [line, message] of Object.entries(cases)) assert.equal(await run(line), message, line);
});
