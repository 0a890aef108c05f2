// Goal: the command line is a well-behaved program of a shell: it reads whatever standard input is, says so when its output is lost,
// fails when it was asked for something that does not exist, counts time from the call, and never shows a stack. Method: the real
// launchers on a real member, in shell pipelines; where etcdctl does the same, src/cli/keelsonctl.peer-test.ts holds the two together.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';

const bin = (name: string): string => fileURLToPath(new URL(`../bin/${name}`, import.meta.url));
const directory = temporaryDirectory('command-line');
let server: ServerProcess;
let environment: Readonly<Record<string, string>>;

before(async () => {
  server = ServerProcess.start({ dataDir: path.join(directory, 'data') });
  environment = {
    PATH: process.env['PATH'] ?? '/usr/bin:/bin',
    ETCDCTL_ENDPOINTS: await server.whenReady(),
    CTL: bin('keelsonctl'),
    UTL: bin('keelsonutl'),
    DIR: directory,
  };
});

after(async () => {
  await server.stop('SIGTERM');
  removeDirectory(directory);
});

interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A script of sh; $CTL and $UTL are the programs, $DIR is scratch. */
async function shell(script: string): Promise<Result> {
  const child = spawn('sh', ['-c', script], { env: environment, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('latin1').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  // With all that it started.
  const timer = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), 30_000);
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  clearTimeout(timer);
  assert.ok(!/\n\s+at |node:internal|Node\.js v/.test(stderr), `a stack is shown by: ${script}\n${stderr}`);
  return { code, stdout, stderr };
}

/** What a script prints to stderr besides log lines. */
function complaints({ stderr }: Result): string {
  return stderr.replace(/^\{.*\n/gm, '');
}

async function expectOutput(script: string, stdout: string): Promise<void> {
  const result = await shell(script);
  assert.deepEqual([result.stdout, result.code], [stdout, 0], `${script}\n${result.stderr}`);
}

async function expectFailure(script: string, code: number, message: string | RegExp): Promise<void> {
  const result = await shell(script);
  const text = complaints(result);
  if (typeof message === 'string') assert.equal(text.split('\n')[0], `Error: ${message}`, script);
  else assert.match(text, message, script);
  assert.deepEqual([result.code, result.stdout], [code, ''], `${script}\n${result.stderr}`);
}

const needsWords = 'put command needs 1 argument and input from stdin or 2 arguments';

test('a value comes from whatever standard input is', async () => {
  // More than a pipe holds, so that it comes in parts.
  const big = Buffer.alloc(1_000_000, 'x\n');
  writeFileSync(path.join(directory, 'big'), big);
  await expectOutput('cat "$DIR/big" | "$CTL" put k && "$CTL" get k --print-value-only', `OK\n${big}\n`);
  await expectOutput('"$CTL" put k < "$DIR/big" && "$CTL" get k --print-value-only', `OK\n${big}\n`);
  await expectOutput('(sleep 0.5; printf a; sleep 0.5; printf b) | "$CTL" put k && "$CTL" get k', 'OK\nk\nab\n');
  await expectOutput('printf "\\377\\000" | "$CTL" put k && "$CTL" get k --print-value-only', 'OK\n\xff\x00\n');
  await expectOutput('mkfifo "$DIR/fifo"; (sleep 0.3; echo v >"$DIR/fifo") & "$CTL" put k <"$DIR/fifo"', 'OK\n');
  // The same pipe twice: the first put takes it all.
  await expectFailure('echo v | ("$CTL" put k >&2; "$CTL" put k)', 128, new RegExp(`OK\nError: ${needsWords}`));
});

test('a pipe that somebody made non-blocking is waited for', async () => {
  const python = 'import os; os.set_blocking(0, False); os.execvp(os.environ["CTL"], ["keelsonctl", "put", "k"])';
  const script = `(sleep 1; echo v) | python3 -c '${python}'`;
  if (spawnSync('python3', ['--version']).status === 0) await expectOutput(script, 'OK\n');
});

test('a value is typed at a terminal', { skip: spawnSync('python3', ['--version']).status !== 0 }, async () => {
  // The end of the input is Ctrl-D at the beginning of a line.
  const python = `
import os, pty, sys, time
pid, fd = pty.fork()
if pid == 0: os.execv(os.environ["CTL"], ["keelsonctl", "put", "typed"])
time.sleep(1)
os.write(fd, b"from a terminal\\n\\x04")
seen = b""
try:
    while True:
        part = os.read(fd, 1000)
        if not part: break
        seen += part
except OSError: pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if b"OK" in seen else 99)
`;
  await expectOutput(`python3 -c '${python}' && "$CTL" get typed`, 'typed\nfrom a terminal\n\n');
});

test('without a value on standard input, etcdctl’s error', async () => {
  await expectFailure('"$CTL" put k </dev/null', 128, needsWords);
  await expectFailure('"$CTL" put k <&-', 128, needsWords);
  await expectFailure('"$CTL" put k </', 128, needsWords);
  await expectFailure('"$CTL" put k 0>/dev/null', 128, `${needsWords} (read /dev/stdin: bad file descriptor)`);
  await expectFailure('"$CTL" txn <&-', 3, 'EOF');
  await expectFailure('"$CTL" txn 0>/dev/null', 3, 'read /dev/stdin: bad file descriptor');
  await expectFailure('"$CTL" watch -i <&-', 3, 'error reading watch request line: EOF');
  await expectFailure(
    '"$CTL" watch -i 0>/dev/null',
    3,
    'error reading watch request line: read /dev/stdin: bad file descriptor',
  );
});

test('a value that no request can hold is refused before it fills the memory', async () => {
  // A pipe holds 64 KiB: who writes more has been read, or is ended by SIGPIPE.
  const { code, stderr } = await shell('(head -c 100000000 /dev/zero || echo stopped >&2) | "$CTL" put k');
  assert.equal(code, 1);
  assert.match(stderr, /^Error: .*trying to send message larger than max \(\d+ vs\. 2097152\)$/m);
  assert.match(stderr, /^stopped$/m);
  const small = 'head -c 5000 /dev/zero | ETCDCTL_MAX_REQUEST_BYTES=4096 "$CTL" put k';
  await expectFailure(small, 1, /trying to send message larger than max \(50\d\d vs\. 4096\)/);
});

test('standard input that is not asked for is left to others', async () => {
  await expectOutput('printf "1\\n2\\n3\\n" | while read n; do "$CTL" put "n$n" v; done', 'OK\nOK\nOK\n');
  // While a watch runs, a reader of the same pipe must not meet EAGAIN.
  const watching = spawn(bin('keelsonctl'), ['watch', 'k'], { env: environment, stdio: ['pipe', 'pipe', 'pipe'] });
  try {
    await sleep(1500);
    const flags = Number.parseInt(
      /^flags:\s+(\d+)/m.exec(readFileSync(`/proc/${watching.pid}/fdinfo/0`, 'utf8'))![1]!,
      8,
    );
    assert.equal(watching.exitCode, null);
    assert.equal(flags & 0o4000, 0, 'O_NONBLOCK is set on a pipe that was not asked for');
  } finally {
    watching.kill('SIGKILL');
  }
});

test('lines of a txn and of watch -i may come slowly', async () => {
  const txn = '(sleep 0.5; printf "\\n"; sleep 0.5; printf "put t 1\\n"; sleep 0.5; printf "\\n\\n") | "$CTL" txn';
  await expectOutput(txn, 'SUCCESS\n\nOK\n');
  const watch = '(sleep 0.5; printf "watch t --r"; sleep 0.5; printf "ev 1\\n"; sleep 2) | "$CTL" watch -i; [ $? = 3 ]';
  await expectOutput(watch, 'PUT\nt\n1\n');
});

const printing = [
  '"$CTL" get k',
  '"$CTL" get k -w json',
  '"$CTL" get k -w protobuf',
  '"$CTL" put k v',
  '"$CTL" version',
  '"$CTL" options',
  '"$CTL" --help',
  '"$CTL" member list -w table',
  '"$CTL" endpoint status -w fields',
  '"$CTL" watch k --rev 1',
  '(echo "watch k --rev 1"; sleep 3) | "$CTL" watch -i',
  'printf "\\n\\n\\n" | "$CTL" txn',
  'printf "\\n\\n\\n" | "$CTL" txn -i',
  '"$UTL" version',
  '"$UTL" --help',
  '"$UTL" snapshot status "$DIR/db"',
  '"$UTL" hashkv "$DIR/db" -w json',
  '"$UTL" dump-log "$DIR/data"',
];

test('output that is lost is an error', async () => {
  await expectOutput('"$CTL" put k v >/dev/null && "$CTL" snapshot save "$DIR/db" >/dev/null', '');
  for (const command of printing) {
    await expectFailure(`${command} >/dev/full`, 1, 'write /dev/stdout: no space left on device');
    await expectFailure(`${command} >&-`, 1, 'write /dev/stdout: bad file descriptor');
  }
});

test('a reader that went away ends it as SIGPIPE would', async () => {
  const script = '{ "$CTL" get k; echo $? >&2; } | true';
  assert.equal(complaints(await shell(script)), '141\n');
});

test('a lost standard error changes nothing', async () => {
  for (const lost of ['2>/dev/full', '2>&-']) {
    await expectOutput(`"$CTL" put k v ${lost}`, 'OK\n');
    await expectOutput(`"$CTL" --debug get k --print-value-only ${lost}`, 'v\n');
    await expectOutput(`"$CTL" nope ${lost}; echo $?`, '1\n');
    await expectOutput(`"$CTL" lease revoke 77 ${lost}; echo $?`, '1\n');
    await expectOutput(`"$UTL" nope ${lost}; echo $?`, '1\n');
  }
});

test('what does not exist fails, but in a group: that tells what it has', async () => {
  for (const program of ['ctl', 'utl']) {
    const file = `"$${program.toUpperCase()}"`;
    await expectFailure(`${file} nope`, 1, `unknown command "nope" for "keelson${program}"`);
    await expectFailure(`${file} nope --help`, 1, `unknown command "nope" for "keelson${program}"`);
    await expectFailure(`${file} snapshot --nope`, 1, 'unknown flag: --nope');
    for (const line of [
      'snapshot',
      'snapshot nope',
      '-w json snapshot nope x',
      'snapshot help',
      'help snapshot nope',
    ]) {
      const { code, stdout, stderr } = await shell(`${file} ${line}`);
      assert.deepEqual([code, stderr], [0, ''], line);
      assert.match(stdout, /Available Commands:\n.* save|Available Commands:\n.* restore/, line);
    }
    const topic = await shell(`${file} help nope`);
    assert.deepEqual([topic.code, topic.stdout], [0, '']);
    assert.match(topic.stderr, /^Unknown help topic \[`nope`\]\nUsage:\n/);
  }
});

test('files and endpoints that cannot be used are told in plain words', async () => {
  writeFileSync(path.join(directory, 'text'), 'no PEM\n');
  const pem = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
  writeFileSync(path.join(directory, 'pem'), pem);
  const noPem = (what: string): string => `tls: failed to find any PEM data in ${what} input`;
  await expectFailure('"$CTL" --cert="$DIR/text" --key="$DIR/text" get k', 128, noPem('certificate'));
  await expectFailure('"$CTL" --cert="$DIR/pem" --key="$DIR/text" get k', 128, noPem('key'));
  await expectFailure(
    '"$CTL" --cert="$DIR/pem" --key="$DIR/pem" get k',
    128,
    /^Error: tls: \S+ and \S+ are no key pair: ./,
  );
  await expectFailure('"$CTL" --cacert=/nope get k', 128, 'open /nope: no such file or directory');
  for (const endpoint of [',', 'http://']) {
    await expectFailure(`ETCDCTL_ENDPOINTS=${endpoint} "$CTL" get k`, 2, /^Error: ".*" is no endpoint: /);
  }
  await expectFailure(
    '"$CTL" snapshot save "$DIR/data"',
    5,
    `rename ${directory}/data.part ${directory}/data: is a directory`,
  );
  await expectFailure('"$UTL" snapshot status /', 1, 'read: is a directory');
  await expectFailure('"$UTL" dump-log /dev/null', 1, 'scandir /dev/null: not a directory');
  await expectFailure(
    '"$UTL" snapshot restore "$DIR/db" --data-dir=/proc/x',
    1,
    'mkdir /proc/x: no such file or directory',
  );
});

test('members are added, updated, promoted and removed by the server, which says what it cannot do', async () => {
  const id = (await shell('"$CTL" member list')).stdout.split(',')[0]!;
  // A learner: it needs not be there for the others to go on.
  const added = await shell('"$CTL" member add m2 --learner --peer-urls=http://127.0.0.1:1');
  const learner = /Member +([0-9a-f]+) added as learner to cluster/.exec(added.stdout)?.[1];
  assert.ok(learner !== undefined, added.stdout + added.stderr);
  assert.match(
    (await shell('"$CTL" member list')).stdout,
    new RegExp(`${learner}, unstarted, , http://127.0.0.1:1, , true`),
  );
  // Beside a second URL: the same ones in the same second make the same id, which is looked at first, in etcd too.
  await expectFailure(
    '"$CTL" member add m3 --learner --peer-urls=http://127.0.0.1:1,http://127.0.0.1:9',
    1,
    'etcdserver: Peer URLs already exists',
  );
  await expectFailure(
    '"$CTL" member add m3 --learner --peer-urls=http://127.0.0.1:3',
    1,
    'etcdserver: too many learner members in cluster',
  );
  const updated = await shell(`"$CTL" member update ${learner} --peer-urls=http://127.0.0.1:2`);
  assert.equal(updated.code, 0, updated.stderr);
  const notReady = 'etcdserver: can only promote a learner member which is in sync with leader';
  await expectFailure(`"$CTL" member promote ${learner}`, 1, notReady);
  await expectFailure(`"$CTL" member promote ${id}`, 1, 'etcdserver: can only promote a learner member');
  const removed = await shell(`"$CTL" member remove ${learner}`);
  assert.equal(removed.code, 0, removed.stderr);
  await expectFailure('"$CTL" member remove 77', 1, 'etcdserver: member not found');
  await expectFailure(
    `"$CTL" member remove ${id}`,
    1,
    'etcdserver: re-configuration failed due to not enough started members',
  );
  await expectFailure('"$CTL" member add', 128, 'member name not provided');
});

test('--command-timeout counts from the call, not from the start of the program', async () => {
  await expectOutput('(sleep 1.5; echo v) | "$CTL" --command-timeout=1s put k', 'OK\n');
  await expectOutput('(sleep 1.5; printf "\\n\\n\\n") | "$CTL" --command-timeout=1s txn', 'SUCCESS\n');
  await expectFailure(
    'ETCDCTL_ENDPOINTS=127.0.0.1:1 "$CTL" --command-timeout=300ms get k',
    1,
    'context deadline exceeded',
  );
});
