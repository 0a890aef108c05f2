// Goal: the init daemon hears READY=1 from this very process, on a path and in the abstract namespace, and what cannot be told is said
// and harms nothing. Method: a Python socket as systemd's, which also tells the sender's pid as the kernel knows it.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { notifyReady } from './init-daemon.ts';

/** Binds the name, says so, and prints the first datagram with its sender. */
const receiver = `
import socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
s.bind(sys.argv[1].replace('@', '\\0', 1) if sys.argv[1][0] == '@' else sys.argv[1])
s.settimeout(10)
print('bound', flush=True)
data, ancillary, flags, address = s.recvmsg(4096, socket.CMSG_SPACE(12))
pid = struct.unpack('iii', ancillary[0][2])[0]
print(repr(data), pid, flush=True)
`;
const hasPython = spawnSync('python3', ['--version']).status === 0;
const options = { skip: hasPython && process.platform === 'linux' ? false : 'needs python3 on Linux' };

const directory = mkdtempSync(path.join(tmpdir(), 'keelson-notify-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

for (const name of [path.join(directory, 'notify'), `@keelson-test-${process.pid}`]) {
  test(`READY=1 to ${name}`, options, async () => {
    const child = spawn('python3', ['-c', receiver, name], { stdio: ['ignore', 'pipe', 'inherit'] });
    const exited = once(child, 'exit');
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    try {
      for (let i = 0; i < 500 && !output.includes('bound'); i++) await new Promise((done) => setTimeout(done, 20));
      assert.equal(await notifyReady({ NOTIFY_SOCKET: name }), null);
      await exited;
      assert.equal(output, `bound\nb'READY=1\\n' ${process.pid}\n`);
    } finally {
      child.kill();
    }
  });
}

test('nobody asked, and what cannot be told', async () => {
  assert.equal(await notifyReady({}), null);
  assert.equal(await notifyReady({ NOTIFY_SOCKET: '' }), null);
  const missing = path.join(directory, 'nobody');
  assert.equal(await notifyReady({ NOTIFY_SOCKET: missing }), `nobody takes messages at ${missing}`);
  assert.match((await notifyReady({ NOTIFY_SOCKET: 'vsock:2:1' })) ?? '', /neither a path nor @name/);
  assert.match((await notifyReady({ NOTIFY_SOCKET: `/${'x'.repeat(107)}` })) ?? '', /longer than 107 bytes/);
});
