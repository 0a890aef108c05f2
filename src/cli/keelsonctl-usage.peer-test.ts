// Goal: a script cannot tell keelsonctl from etcdctl by what is wrong or missing: words, flags, help, the environment, standard input,
// endpoints, passwords. Method: ctl-pair-fixture.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { masked, plainErrors, type Side, same, sameLines, sides } from './ctl-pair-fixture.ts';
import { keelsonctl, type Result, runProgram } from './peer-fixture.ts';

test('help, and what does not exist: the same exit code, on the same stream, of the same command', async () => {
  const groups = ['member', 'lease', 'alarm', 'endpoint', 'snapshot', 'downgrade'];
  const ofGroup = (group: string): string[] => [
    group,
    `${group} nonsense`,
    `${group} nonsense list x --hex`,
    `-w json ${group} nonsense`,
    `${group} -- nonsense`,
    `${group} --help`,
    `${group} -h nonsense`,
    `${group} nonsense --help`,
    `${group} help`,
    `${group} help nonsense`,
    `help ${group}`,
    `help ${group} nonsense`,
    `${group} --nonsense`,
    `${group} nonsense --nonsense`,
    `${group} --help=nonsense`,
  ];
  const others = [
    ['', '--help', '-h', 'help', '-w json', '-- member', '-- nonsense', '--help=false'],
    [
      'nonsense',
      'nonsense --help',
      'nonsense member list',
      '-w json nonsense',
      'nonsense --nonsense',
      '--nonsense get',
    ],
    ['--nonsense', '-x', '-w', '--hex=nonsense', '--version', '--help --nonsense'],
    ['help get', 'help ge', 'help member list', 'help member list x', 'help help', 'help --help', 'help -w json get'],
    ['help nonsense', 'help nonsense x', 'help --nonsense', 'help -- member', 'help member --hex'],
    ['get --help', 'get a -h', 'get -h --nonsense', 'get --nonsense -h', 'member list --help', 'lease grant -h x y'],
    ['version --help', 'version --nonsense', 'options --help', 'snapshot save --help', 'endpoint --cluster nonsense'],
  ];
  /** Of which command it is the usage; what is not a usage as it is. */
  const subject = (side: Side, text: string): string =>
    (/Usage:\n(.*)\n/.exec(text)?.[1] ?? text).replaceAll(side.name, 'PROGRAM');
  for (const line of [...groups.flatMap(ofGroup), ...others.flat()]) {
    const words = line === '' ? [] : line.split(' ');
    const [theirs, ours] = await Promise.all(sides.map((side) => runProgram(side.file, words)));
    const seen = (side: Side, result: Result): unknown => ({
      code: result.code,
      stdout: subject(side, result.stdout.toString()),
      stderr: subject(side, result.stderr),
      errors: plainErrors(side, result.stderr),
    });
    assert.deepEqual(seen(sides[1], ours!), seen(sides[0], theirs!), line);
  }
});

test('standard input that is not there, or no file', async () => {
  for (const script of [
    'exec "$0" --endpoints "$1" put k </dev/null',
    'exec "$0" --endpoints "$1" put k <&-',
    'exec "$0" --endpoints "$1" put k </',
    'exec "$0" --endpoints "$1" txn <&-',
    'exec "$0" --endpoints "$1" watch -i <&-',
    '(sleep 0.5; printf "a\\n"; sleep 0.5; printf b) | "$0" --endpoints "$1" --command-timeout 700ms put k',
  ]) {
    const run = (side: Side): Promise<Result> => runProgram('sh', ['-c', script, side.file, side.member.endpoint]);
    const [theirs, ours] = await Promise.all([run(sides[0]), run(sides[1])]);
    assert.deepEqual(
      [ours.code, ours.stdout.toString(), plainErrors(sides[1], ours.stderr)],
      [theirs.code, theirs.stdout.toString(), plainErrors(sides[0], theirs.stderr)],
      script,
    );
  }
  await same(['get', 'k']);
});

test('words and flags that make no sense', async () => {
  await sameLines([
    'foo',
    'get',
    'get a b c --prefix',
    'get a b --from-key',
    'get a --prefix --from-key',
    'get a --keys-only --count-only',
    'get a --count-only',
    'get a -w json --print-value-only',
    'get a --order x',
    'get a --sort-by x',
    'get a --consistency x',
    'get a --min-mod-rev 5 --max-mod-rev 4',
    'get a --min-create-rev 5 --max-create-rev 4',
    'get a --foo',
    'get a -x',
    'get --limit',
    'get a --limit=abc',
    'get a --limit=99999999999999999999',
    'get a --prefix=maybe',
    'get a ---',
    'get a --=x',
    'get a -w',
    'get a -w nonsense',
    'get a --dial-timeout 5',
    'get a --dial-timeout x',
    'get a --cert=',
    'put',
    'put a b --ignore-value',
    'put a b --lease zz',
    'put a -1',
    'del',
    'del a b c',
    'del a b --prefix',
    'del --prefix --from-key a',
    'get  ',
    'put  x',
    'ge a',
    'li',
  ]);
});

test('the environment', async () => {
  await same(['get', 'b'], { env: { ETCDCTL_WRITE_OUT: 'json', ETCDCTL_API: '3' } });
  await same(['get', 'b'], { env: { ETCDCTL_HEX: 'true' } });
  await same(['get', 'b'], { env: { ETCDCTL_COMMAND_TIMEOUT: 'nonsense' } });
  await same(['get', 'b', '-w', 'json'], { env: { ETCDCTL_WRITE_OUT: 'simple' } });
  await same(['get', 'b'], { env: { ETCDCTL_ENDPOINTS: '127.0.0.1:1' } });
  await same(['get'], { env: { ETCDCTL_ENDPOINTS: '127.0.0.1:1' } });
  const [, own] = sides;
  const run = (env: Record<string, string>): Promise<Result> =>
    runProgram(keelsonctl, ['get', 'c', '-w', 'fields'], { env });
  const theirs = await run({ ETCDCTL_ENDPOINTS: own.member.endpoint });
  const ours = await run({ KEELSONCTL_ENDPOINTS: own.member.endpoint, ETCDCTL_ENDPOINTS: '127.0.0.1:1' });
  assert.deepEqual([ours.code, ours.stdout.toString()], [0, theirs.stdout.toString()]);
});

test('an endpoint that nobody serves', async () => {
  const dead = ['--endpoints', '127.0.0.1:1', '--command-timeout', '700ms'];
  for (const words of [
    ['get', 'a'],
    ['put', 'a', 'b'],
    ['endpoint', 'health'],
    ['endpoint', 'health', '-w', 'json'],
    ['endpoint', 'status', '-w', 'json'],
    ['endpoint', 'status', '-w', 'table'],
    ['endpoint', 'hashkv'],
    ['defrag'],
    ['member', 'list'],
  ]) {
    const [theirs, ours] = await Promise.all(sides.map((side) => runProgram(side.file, [...dead, ...words])));
    assert.equal(masked(sides[1], ours!.stdout), masked(sides[0], theirs!.stdout), words.join(' '));
    assert.equal(ours!.code, theirs!.code, words.join(' '));
    assert.deepEqual(plainErrors(sides[1], ours!.stderr), plainErrors(sides[0], theirs!.stderr));
  }
  // A second endpoint that lives takes over.
  await same([...dead, 'get', 'c']);
  await same([...dead, 'endpoint', 'health', '-w', 'simple']);
});

test('authentication', async () => {
  const [first] = sides;
  for (const side of sides) {
    for (const line of ['user add root:pw', 'role add root', 'user grant-role root root', 'auth enable']) {
      const words = ['--endpoints', side.member.endpoint, ...line.split(' ')];
      const { code, stderr } = await runProgram(first.file, words);
      assert.equal(code, 0, stderr);
    }
  }
  await sameLines(['get b', 'get b --user root:pw', 'get b --user root --password pw', 'put b c --user root:wrong']);
  await sameLines(['endpoint status', 'member list --user root:pw', 'watch b --rev 99 --user root:wrong']);
});
