// Tells the init daemon that started this process that it serves: systemd's sd_notify protocol, one datagram "READY=1" to the unix socket
// that NOTIFY_SOCKET names (a path, or @name in Linux' abstract namespace). For units of Type=notify, which etcd's own is.
//
// Node has no unix datagram sockets (nodejs/node#61933, closed), and the packages for it are native and old. systemd-notify(1) is another
// process, which a unit's default NotifyAccess=main does not listen to. So the datagram is sent by libc's own calls through node:ffi, which
// comes with Node 26; where that is missing (it is experimental, and not on every processor) systemd-notify is tried, for units that allow it.

import { execFile } from 'node:child_process';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;
/** sockaddr_un: the family in two bytes, then the path. */
const pathBytesMax = 108;
const fallbackTimeoutMs = 5_000;

/** Resolves with null when it was told or nobody asked, else with what went wrong. */
export async function notifyReady(env: Readonly<Record<string, string | undefined>>): Promise<string | null> {
  const path = env['NOTIFY_SOCKET'];
  if (path === undefined || path === '') return null;
  if (!/^[/@]./.test(path)) return `NOTIFY_SOCKET is neither a path nor @name: ${path}`;
  if (Buffer.byteLength(path) >= pathBytesMax) return `NOTIFY_SOCKET is longer than ${pathBytesMax - 1} bytes`;
  const ffi = process.getBuiltinModule('node:ffi') as typeof import('node:ffi') | undefined;
  if (ffi === undefined || process.platform !== 'linux') return await notifyByProgram();
  return sendDatagram(ffi, path, Buffer.from('READY=1\n'));
}

function sendDatagram({ dlopen }: typeof import('node:ffi'), path: string, message: Buffer): string | null {
  // The process' own symbols: libc is one of them.
  using libc = dlopen(null, {
    socket: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
    sendto: { arguments: ['i32', 'buffer', 'u64', 'i32', 'buffer', 'u32'], return: 'i64' },
    close: { arguments: ['i32'], return: 'i32' },
  });
  const { socket, sendto, close } = libc.functions;
  const name = Buffer.from(path);
  // A path ends with a zero byte; an abstract name begins with one instead, and its length tells its end.
  const isAbstract = name[0] === 0x40;
  if (isAbstract) name[0] = 0;
  const address = Buffer.alloc(2 + name.length + (isAbstract ? 0 : 1));
  new Uint16Array(address.buffer, address.byteOffset, 1)[0] = AF_UNIX;
  name.copy(address, 2);
  const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return 'no unix datagram socket could be made';
  const sent = sendto(fd, message, BigInt(message.length), MSG_NOSIGNAL, address, address.length);
  close(fd);
  return Number(sent) === message.length ? null : `nobody takes messages at ${path}`;
}

function notifyByProgram(): Promise<string | null> {
  return new Promise((resolve) => {
    execFile('systemd-notify', ['--ready', `--pid=${process.pid}`], { timeout: fallbackTimeoutMs }, (error) =>
      resolve(error === null ? null : `systemd-notify: ${error.message}`),
    );
  });
}
