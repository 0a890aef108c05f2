// Goal: a script cannot tell keelsonctl from etcdctl, in what it writes, reads and waits for. Method: ctl-pair-fixture.ts.

import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { peerBinary } from '../testing/peer-programs.ts';
import {
  masked,
  onBoth,
  plainErrors,
  type Side,
  same,
  sameInEveryFormat,
  sameLines,
  scratch,
  sides,
} from './ctl-pair-fixture.ts';
import { type Result, runProgram } from './peer-fixture.ts';

test('put and get', async () => {
  await sameInEveryFormat(['put', 'a', '1']);
  await sameInEveryFormat(['put', 'a', '2', '--prev-kv']);
  await same(['put', 'b', '<&>\u2028 "quoted" \u00e9']);
  await same(['put', 'from-stdin'], { stdin: 'line 1\nline 2' });
  await same(['put', 'empty', '']);
  await sameLines([
    'put --ignore-value a',
    'put --ignore-lease a 3',
    'put c -- -1',
    'put -- -d 4',
    'put ns/1 x',
    'put ns/2 y',
  ]);
  await sameInEveryFormat(['get', 'a']);
  await sameInEveryFormat(['get', '--prefix', '']);
  await sameInEveryFormat(['get', 'nothing']);
  await sameInEveryFormat(['--hex', 'get', 'b', '--from-key']);
  await sameLines([
    'get a c',
    'get --from-key b',
    'get --prefix ns/ --keys-only',
    'get --prefix ns/ --print-value-only',
    'get --prefix ns/ --limit 1 -w json',
    'get --prefix ns/ --count-only -w fields',
    'get a --rev 2',
    'get a --rev=0x3 -w json',
    'get a --consistency s',
    'get --prefix=true ns/ --order descend',
    'get --from-key a --sort-by value --order ASCEND',
    'get --from-key a --sort-by create --order DESCEND --limit=3',
    'get --from-key a --sort-by MODIFY --order ASCEND',
    'get --from-key a --sort-by version --order descend',
    'get --from-key a --min-mod-rev 5 --max-mod-rev 12',
    'get --from-key a --min-create-rev 5 --max-create-rev 12 -w=json',
    'get --from-key a --stream -wjson',
    'get --prefix --stream --limit 2 ns -w fields',
  ]);
  // While the two still hold the same: leases have ids of their own.
  await sameInEveryFormat(['endpoint', 'hashkv']);
});

test('bytes that are no text', async () => {
  const script = 'exec "$0" --endpoints "$1" "$2" "$(printf "k\\377\\001")" $3';
  for (const words of [
    ['put', 'v'],
    ['get', '-w=json'],
    ['get', '-w=fields'],
    ['get', ''],
    ['del', '--prev-kv'],
  ]) {
    const [theirs, ours] = await Promise.all(
      sides.map((side) => runProgram('sh', ['-c', script, side.file, side.member.endpoint, ...words])),
    );
    assert.deepEqual(ours?.stdout, theirs?.stdout, words.join(' '));
    assert.equal(ours?.code, 0);
  }
  const value = Buffer.from([0, 0xff, 0xc3, 0x28, 10]);
  await same(['put', 'binary'], { stdin: value });
  await sameInEveryFormat(['get', 'binary']);
  await sameInEveryFormat(['--hex', 'get', 'binary']);
});

test('del', async () => {
  await sameInEveryFormat(['del', 'a', '--prev-kv']);
  await sameLines(['put x1 1', 'put x2 2', 'put x3 3', 'put x4 4']);
  await sameLines(['del x1', 'del x2 x3 --range --prev-kv', 'del --prefix x --prev-kv -w json', 'del --from-key zz']);
});

test('txn', async () => {
  const txns = [
    'mod("k") > "0"\n\nput k v\n\nput k2 "a b"\nget k\nget --prefix k\ndel k\n\n',
    'val("k2") = "a b"\n\nget k2\nget --prefix k --keys-only\nput k3 --prev-kv x\ndel nothing\n\nput never x\n\n',
    'create("k2") != "0"\nver(`k2`) < "100"\nc("k2") > "0"\nversion("k2") = "1"\nm("k2") > "1"\nvalue("k2") > "a"\n\nput "key with \\x41\\u00e9\\n" \'single quoted\'\n\n\n',
    '\nput \'k\' "a\\"b" --lease=0\n\n\n',
    '\n\n\n',
  ];
  for (const stdin of txns) await sameInEveryFormat(['txn'], { stdin });
  await same(['txn', '-i'], { stdin: txns[0] });
  const bad = [
    '',
    'mod("k") > "0"\n\n',
    'foo\n',
    'bar("x") = "y"\n',
    'mod("x") = "y"\n',
    'mod("x")= "1"\n',
    'mod(x) = "1"\n',
    '\nfoo\n',
    '\nfoo bar\n',
    '\nget k --nope\n',
    '\nput k\n\n\n',
    '\nput k v\nput k w\n\n\n',
    '\nput "a\\qb" c\n',
    '\nget k --order x\n',
  ];
  for (const stdin of bad) await same(['txn'], { stdin });
  await same(['txn', 'word']);
});

test('lease', async () => {
  for (const side of sides) {
    for (let count = 0; count < 2; count++) {
      const result = await runProgram(side.file, ['--endpoints', side.member.endpoint, 'lease', 'grant', '500']);
      assert.match(result.stdout.toString(), /^lease [0-9a-f]{16} granted with TTL\(500s\)\n$/);
      side.leases.push(result.stdout.toString().slice(6, 22));
    }
  }
  await same(['put', 'leased', 'v', '--lease=$0']);
  await same(['put', 'leased2', 'v', '--lease', '$1']);
  await same(['get', 'leased', '-w', 'json']);
  await same(['get', 'leased', '-w', 'fields', '--hex']);
  await same(['put', 'leased', 'w', '--ignore-lease']);
  for (const words of [
    ['lease', 'timetolive', '$0', '--keys'],
    ['lease', 'timetolive', '$0'],
    ['lease', 'timetolive', '1234'],
    ['lease', 'keep-alive', '--once', '$0'],
    ['lease', 'keep-alive', '1234', '--once'],
    ['lease', 'list'],
    ['lease', 'revoke', '1234'],
    ['--hex', 'lease', 'timetolive', '$0', '--keys'],
    ['--hex', 'lease', 'list'],
  ]) {
    await sameInEveryFormat(words);
  }
  await same(['lease', 'revoke', '$0']);
  await same(['-w', 'json', 'lease', 'revoke', '$1']);
  await same(['get', '--prefix', 'leased']);
  await same(['put', 'leased', 'v', '--lease=77']);
  await sameLines(['lease grant 0 -w table', 'lease grant -1 -w table', 'lease keep-alive 5']);
  await sameLines(['lease grant 9000000001', 'lease revoke xyz', 'lease grant x', 'lease grant', 'lease timetolive']);
});

test('a lease is kept alive until it is gone', async () => {
  for (const side of sides) {
    const grant = await runProgram(side.file, [
      '--endpoints',
      side.member.endpoint,
      '-w',
      'json',
      'lease',
      'grant',
      '2',
    ]);
    const id = BigInt(/"ID":(\d+)/.exec(grant.stdout.toString())![1]!).toString(16);
    side.leases[2] = id;
  }
  const running = onBoth(['lease', 'keep-alive', '$2'], { endAfterMs: 8000 });
  await new Promise((resolve) => setTimeout(resolve, 3500));
  await same(['lease', 'revoke', '$2']);
  const [theirs, ours] = await running;
  const lines = (side: Side, result: Result): string[] => [...new Set(masked(side, result.stdout).split('\n'))];
  assert.deepEqual(lines(sides[1], ours), lines(sides[0], theirs));
  assert.deepEqual([ours.code, theirs.code], [0, 0]);
  assert.match(ours.stdout.toString(), /keepalived with TTL\(2\)\n.*keepalived/);
});

test('watch', async () => {
  await sameLines(['put w 1', 'put w 2', 'put w2 1', 'del w']);
  const end = { endAfterMs: 2000 };
  const history = ['watch', '--rev', '2'];
  const lines = 'watch w --rev 2\nwatch --prefix w2 --rev 2 --prev-kv\nfoo\nwatch\n\n';
  await Promise.all([
    same([...history, '--prev-kv', 'w'], end),
    same([...history, '-w', 'json', '--prev-kv', 'w'], end),
  ]);
  await Promise.all([same([...history, '-w', 'fields', 'w'], end), same([...history, '-w', 'protobuf', 'w'], end)]);
  await Promise.all([
    same([...history, '--prefix', 'w', '-w', 'json'], end),
    same([...history, 'w', 'x', '--hex'], end),
  ]);
  await Promise.all([
    same(['watch', '--rev=2'], { ...end, env: { ETCDCTL_WATCH_KEY: 'w', ETCDCTL_WATCH_RANGE_END: 'x' } }),
  ]);
  await same([...history, 'w', '-w', 'table']);
  // Two watches of one stream: the server may answer either first.
  const both = await onBoth(['watch', '-i', '-w', 'json'], { ...end, stdin: lines });
  const sorted = both.map((result) => result.stdout.toString().split('\n').sort());
  assert.deepEqual(sorted[1], sorted[0]);
  assert.equal(sorted[0]?.length, 3);
  assert.deepEqual(plainErrors(sides[1], both[1].stderr), plainErrors(sides[0], both[0].stderr));
  await same(['watch', '--rev', '2', 'w', '--', 'sh', '-c', 'env | grep ^ETCD_WATCH | sort'], end);
  await same(['watch', '--rev', '2', 'w', '--', 'sh', '-c', 'exit 3'], end);
  await same(['watch', '-i'], { stdin: 'progress\n' });
  await same(['watch', '-i'], { stdin: 'watch a --bogus\n' });
  for (const words of [['watch'], ['watch', 'a', 'b', '--prefix'], ['watch', 'a', '--']]) await same(words);
  await same(['watch', 'a'], { env: { ETCDCTL_WATCH_KEY: 'w' } });
  await same(['watch', 'a'], { env: { ETCDCTL_WATCH_RANGE_END: 'w' } });
});

test('a watch prints events as they come, and progress when asked', async () => {
  const watching = onBoth(['watch', '-i'], { endAfterMs: 2500, stdin: 'watch live\n' });
  await new Promise((resolve) => setTimeout(resolve, 1200));
  await sameLines(['put live 1', 'del live']);
  const [theirs, ours] = await watching;
  assert.equal(ours.stdout.toString(), theirs.stdout.toString());
  assert.equal(ours.stdout.toString(), 'PUT\nlive\n1\nDELETE\nlive\n\n');
});

test('compaction and what was compacted', async () => {
  await sameLines([
    'compaction 5',
    'compaction 5',
    'compaction 9 --physical',
    'compaction x',
    'compaction',
    'compaction 99999',
  ]);
  await sameLines(['compaction 9223372036854775807', 'compaction 9223372036854775808', 'compaction -- -1']);
  await sameLines(['get a --rev 3', 'get a --rev 99999', 'get a --rev 9223372036854775807']);
  await same(['watch', '--rev', '2', 'a']);
  await same(['watch', '--rev', '2', 'a', '-w', 'json']);
  await same(['watch', '--rev', '2', 'a', '-w', 'protobuf']);
});

test('endpoint, member, alarm, defrag, move-leader', async () => {
  for (const words of [
    ['member', 'list'],
    ['alarm', 'list'],
    ['alarm', 'disarm'],
  ]) {
    await sameInEveryFormat(words);
    await sameInEveryFormat(['--hex', ...words]);
  }
  for (const format of ['simple', 'json', 'fields', 'protobuf']) {
    await same(['-w', format, 'endpoint', 'health']);
    await same(['-w', format, 'endpoint', 'status']);
  }
  // Durations and sizes make columns of other widths.
  for (const words of [
    ['endpoint', 'health'],
    ['endpoint', 'status'],
  ]) {
    const [theirs, ours] = await onBoth(['-w', 'table', ...words]);
    const cells = (side: Side, result: Result): string =>
      masked(side, result.stdout.toString())
        .replace(/─+/g, '─')
        .replace(/ +/g, ' ')
        .replace(/ \d+% /, ' PERCENT ');
    assert.equal(cells(sides[1], ours), cells(sides[0], theirs));
  }
  await sameLines(
    [
      'endpoint hashkv --rev 10 -w json',
      'endpoint hashkv --rev 99999',
      'member list --consistency s',
      'mem li',
      'defrag',
      'defrag -w table',
      'move-leader 1',
      'move-leader zz',
      'move-leader',
      'alarm list x',
      'endpoint',
      'version',
    ].filter((line) => line !== 'endpoint' && line !== 'version'),
  );
});

test('downgrade', async () => {
  await sameLines([
    ...['downgrade validate', 'downgrade validate a b', 'downgrade enable', 'downgrade enable a b'],
    ...['downgrade validate x', 'downgrade validate 3', 'downgrade validate 3.5', 'downgrade validate 3.6.0.1'],
    ...['downgrade validate 3.6', 'downgrade validate 3.6.9-rc.1', 'downgrade validate 3.7', 'downgrade enable 3.5'],
    'downgrade cancel x',
  ]);
  await sameInEveryFormat(['downgrade', 'validate', '3.6.0']);
  await sameInEveryFormat(['downgrade', 'cancel']);
});

test('member add, update, promote, remove', async () => {
  const urls = '--peer-urls=http://127.0.0.1:23990,http://127.0.0.1:23991';
  // The id of a new member is random: where it stands in lists, and its width, must be alike on both before outputs are compared.
  const placeOfNew = async (side: Side): Promise<string> => {
    const list = await runProgram(peerBinary('etcdctl'), ['--endpoints', side.member.endpoint, 'member', 'list']);
    const ids = list.stdout
      .toString()
      .split('\n')
      .map((line) => line.split(',')[0]!);
    const id = /^([0-9a-f]+), unstarted/m.exec(list.stdout.toString())?.[1];
    if (id === undefined) return 'none';
    side.leases[3] = id;
    return `${ids.indexOf(id)}/${id.length}`;
  };
  const onBothAlike = async (words: readonly string[]): Promise<readonly [Result, Result]> => {
    for (let tries = 0; tries < 50; tries++) {
      const results = await onBoth(words);
      const places = [await placeOfNew(sides[0]), await placeOfNew(sides[1])];
      if (!words.includes('add') || places[0] === places[1]) return results;
      await onBoth(['member', 'remove', '$3']);
    }
    throw new Error('no two new members stood alike');
  };
  const alike = async (words: readonly string[]): Promise<void> => {
    const [theirs, ours] = await onBothAlike(words);
    const line = words.join(' ');
    assert.equal(masked(sides[1], ours.stdout), masked(sides[0], theirs.stdout), `stdout of: ${line}`);
    assert.equal(ours.code, theirs.code, `exit code of: ${line}\n${ours.stderr}`);
    assert.deepEqual(plainErrors(sides[1], ours.stderr), plainErrors(sides[0], theirs.stderr), `stderr of: ${line}`);
  };
  for (const flags of [['-w=simple'], ['-w=json'], ['-w=json', '--hex'], ['-w=fields'], ['-w=table']]) {
    await alike([...flags, 'member', 'add', 'm "2"', '--learner', urls]);
    await alike([...flags, 'member', 'list']);
    await alike([...flags, 'member', 'update', '$3', '--peer-urls', 'http://127.0.0.1:23992']);
    await alike([...flags, 'member', 'promote', '$3']);
    await alike([...flags, 'member', 'remove', '$3']);
  }
  await alike(['member', 'add', 'm2', '--learner', urls]);
  await alike(['-w=protobuf', 'member', 'remove', '$3']);
  await sameLines([
    'member add',
    'member add m2',
    'member add m2 --peer-urls=',
    'member add m2 http://127.0.0.1:1 HTTP://127.0.0.1:2 --learner',
    'member add m2 --peer-urls=nonsense',
    'member add m2 --peer-urls=http://127.0.0.1:23801',
    'member add m2 --peer-urls',
    'member add m2 --peer-url=x',
    'member remove',
    'member remove 1 2',
    'member remove zz',
    'member remove 77',
    'member remove 10000000000000000',
    'member update',
    'member update 77',
    'member update zz --peer-urls=x',
    'member update 77 --peer-urls=http://127.0.0.1',
    'member update 77 --peer-urls=http://127.0.0.1:1',
    'member promote',
    'member promote 77',
    'member list x --consistency=l',
  ]);
});

test('snapshot save', async () => {
  await same(['snapshot', 'save', 'FILE']);
  const file = join(scratch, 'keelsonctl');
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(statSync(file).size % 512, 32);
  const status = await runProgram(peerBinary('etcdutl'), ['snapshot', 'status', file, '-w', 'json']);
  assert.equal(status.code, 0, status.stderr);
  // The two members hold the same; their consistent index and sizes may differ by what came between.
  const theirs = await runProgram(peerBinary('etcdutl'), [
    'snapshot',
    'status',
    join(scratch, 'etcdctl'),
    '-w',
    'json',
  ]);
  const read = (result: Result): unknown[] => {
    const value = JSON.parse(result.stdout.toString()) as Record<string, unknown>;
    return [value['revision'], value['totalKey'], value['version']];
  };
  assert.deepEqual(read(status), read(theirs));
  assert.ok(readFileSync(file).subarray(16, 20).equals(Buffer.from('edda0ced', 'hex')), 'not a bbolt file');
  await same(['snapshot', 'save']);
  await same(['snapshot', 'save', '/nonexistent/directory/file']);
});
