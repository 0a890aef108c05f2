// Goal: whatever an HTTP/1 client sends to the endpoints that are not gRPC, keelson answers as etcd does: odd methods, targets and queries,
// HTTP/1.0, pipelining, bodies that nobody reads, Expect, broken requests. Method: the same bytes on a socket to both programs; status
// lines, the headers that mean something, bodies, and whether the connection stays open. What differs is listed with its reason.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { freePorts } from '../src/testing/free-port.ts';
import { Program, scratchFolder, serverFile } from './program.ts';

/** A server that has more to say says it sooner than this. */
const quietMs = 400;

interface Exchange {
  readonly answers: readonly string[];
  readonly closed: boolean;
}

const compared = [
  'allow',
  'access-control-allow-origin',
  'connection',
  'content-length',
  'content-type',
  'location',
  'transfer-encoding',
  'x-content-type-options',
];

/** Everything that comes back for these bytes, until the server has been quiet for a while or has closed. */
async function exchange(port: number, request: string): Promise<{ text: string; closed: boolean }> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  let text = '';
  let closed = false;
  socket.setEncoding('latin1').on('data', (part: string) => {
    text += part;
    timer.refresh();
  });
  const done = new Promise<void>((resolve) => {
    socket.on('close', () => {
      closed = true;
      resolve();
    });
    socket.on('error', () => {});
  });
  let quiet = (): void => {};
  const silence = new Promise<void>((resolve) => {
    quiet = resolve;
  });
  const timer = setTimeout(() => quiet(), quietMs);
  await once(socket, 'connect');
  socket.write(request, 'latin1');
  await Promise.race([done, silence]);
  clearTimeout(timer);
  const result = { text, closed };
  socket.destroy();
  return result;
}

/** Splits what came into answers; each as its status, compared headers and body. `heads`: which of them answer HEAD. */
function parse(text: string, heads: readonly boolean[]): string[] {
  const answers: string[] = [];
  let rest = text;
  while (rest !== '') {
    const end = rest.indexOf('\r\n\r\n');
    if (end < 0) {
      answers.push(`unfinished: ${rest}`);
      break;
    }
    const [status, ...lines] = rest.slice(0, end).split('\r\n');
    rest = rest.slice(end + 4);
    const headers = new Map(lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line]));
    const value = (name: string): string => headers.get(name)?.replace(/^[^:]*: */, '') ?? '';
    let body = '';
    if (!heads[answers.length] && !/^HTTP\/1\.. 1/.test(status!)) {
      const length = headers.has('content-length') ? Number(value('content-length')) : rest.length;
      if (value('transfer-encoding') === 'chunked') {
        for (;;) {
          const line = rest.indexOf('\r\n');
          const size = Number.parseInt(rest.slice(0, line), 16);
          body += rest.slice(line + 2, line + 2 + size);
          rest = rest.slice(line + 4 + size);
          if (!(size > 0)) break;
        }
      } else {
        body = rest.slice(0, length);
        rest = rest.slice(length);
      }
    }
    // The metrics are made in one piece here and in many there; what ends a connection needs no length.
    const isMetrics = value('content-type').includes('version=0.0.4');
    const unsized = isMetrics || (status!.includes(' 400 ') && value('connection') === 'close');
    const shown = compared
      .filter((name) => headers.has(name) && !(unsized && /content-length|transfer-encoding/.test(name)))
      .map((name) => `${name}: ${value(name)}`);
    // The checks of a verbose answer come in the random order of a Go map.
    const sorted = body.split('\n').sort().join('\n');
    answers.push([status, ...shown, isMetrics ? 'metrics' : sorted].join(' | '));
  }
  return answers;
}

const request = (line: string, ...headers: string[]): string =>
  `${[`${line} HTTP/1.1`, 'Host: test', ...headers].join('\r\n')}\r\n\r\n`;

const get = (target: string): string => request(`GET ${target}`);

interface Case {
  readonly name: string;
  readonly bytes: string;
  /** Why keelson answers otherwise. */
  readonly differs?: string;
}

const plain = (targets: readonly string[]): Case[] =>
  targets.map((target) => ({ name: target.length < 60 ? target : `${target.slice(0, 20)}…`, bytes: get(target) }));

const cases: readonly Case[] = [
  ...plain(['/health', '/version', '/livez', '/readyz', '/', '/nope', '/debug/vars/', '/v2/keys']),
  ...plain(['/health/', '/version/', '/livez/', '/readyz/', '/metrics/', '/health//', '//version', '/./livez']),
  ...plain(['/health?serializable', '/health?serializable=', '/health?serializable=TRUE', '/health?serializable=true']),
  ...plain([
    '/health?exclude=unknown',
    '/health?exclude=',
    '/health?exclude',
    '/health?exclude=NOSPACE&exclude=CORRUPT',
  ]),
  ...plain(['/livez?exclude=unknown', '/readyz?exclude=unknown&verbose', '/readyz?exclude=', '/livez?verbose=false']),
  ...plain([
    '/livez?verbose',
    '/livez?allow=x',
    '/readyz/linearizable_read?exclude=linearizable_read',
    '/livez/%73erializable_read',
  ]),
  ...plain([
    '/%2fhealth',
    '/health%00',
    '/health?%',
    '/health?a=%zz',
    '/%',
    '/health?',
    '/health#fragment',
    '/health;x=1',
  ]),
  ...plain(['http://other/health', 'http://other:1/nope', `/${'x'.repeat(3000)}`, `/health?${'q'.repeat(3000)}`]),
  { name: '/v3', bytes: get('/v3'), differs: 'the JSON gateway comes later' },
  { name: 'a request line beyond 4 KiB', bytes: get(`/${'x'.repeat(5000)}`) },
  ...['HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'TRACE', 'OPTIONS'].flatMap((method) =>
    ['/health', '/version', '/livez', '/metrics', '/nope'].map((target) => ({
      name: `${method} ${target}`,
      bytes: request(`${method} ${target}`),
    })),
  ),
  { name: 'OPTIONS *', bytes: request('OPTIONS *') },
  {
    name: 'HTTP/1.0 without a host',
    bytes: 'GET /health HTTP/1.0\r\n\r\n',
    differs: 'node answers in its own version of HTTP, as RFC 9110 asks',
  },
  {
    name: 'HTTP/1.0 that wants to stay',
    bytes: 'GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n',
    differs: 'node answers in its own version of HTTP, as RFC 9110 asks',
  },
  { name: 'HTTP/1.1 without a host', bytes: 'GET /health HTTP/1.1\r\n\r\n' },
  { name: 'an empty host', bytes: 'GET /health HTTP/1.1\r\nHost:\r\n\r\n' },
  { name: 'two hosts', bytes: 'GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n' },
  { name: 'a host that is none', bytes: 'GET /health HTTP/1.1\r\nHost: a b\r\n\r\n' },
  { name: 'Connection: close', bytes: request('GET /health', 'Connection: close') },
  { name: 'three at once', bytes: get('/health') + get('/nope') + request('HEAD /version') },
  { name: 'two at once, the first closes', bytes: request('GET /version', 'Connection: close') + get('/health') },
  { name: 'a body with a length', bytes: `${request('POST /health', 'Content-Length: 5')}hello${get('/version')}` },
  {
    name: 'a body in chunks',
    bytes: `${request('POST /version', 'Transfer-Encoding: chunked')}5\r\nhello\r\n0\r\n\r\n${get('/livez')}`,
  },
  {
    name: 'a GET with a body in chunks',
    bytes: `${request('GET /version', 'Transfer-Encoding: chunked')}5\r\nhello\r\n0\r\n\r\n${get('/livez')}`,
  },
  {
    name: 'a GET with a body of 40 KB',
    bytes: `${request('GET /version', 'Content-Length: 40000')}${'x'.repeat(40_000)}${get('/livez')}`,
  },
  {
    name: 'Expect: 100-continue, a body that nobody reads',
    bytes: request('POST /version', 'Expect: 100-continue', 'Content-Length: 5'),
  },
  {
    name: 'Expect: 100-continue on a GET',
    bytes: request('GET /version', 'Expect: 100-continue', 'Content-Length: 5'),
  },
  { name: 'Expect: something else', bytes: request('GET /version', 'Expect: tea') },
  {
    name: 'an upgrade to h2c',
    bytes: request('GET /version', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABk'),
  },
  { name: 'an upgrade to a web socket', bytes: request('GET /version', 'Connection: Upgrade', 'Upgrade: websocket') },
  { name: 'gzip is offered', bytes: request('GET /version', 'Accept-Encoding: gzip') },
  { name: 'an unknown method', bytes: request('BREW /health'), differs: 'node knows the registered methods alone' },
  { name: 'a method in lower case', bytes: request('get /health'), differs: 'node knows the registered methods alone' },
  {
    name: 'lines that end without CR',
    bytes: 'GET /version HTTP/1.1\nHost: test\n\n',
    differs: 'node takes no bare LF',
  },
  { name: 'an empty line before', bytes: `\r\n${get('/version')}` },
  {
    name: 'length and chunks both',
    bytes: `${request('POST /version', 'Content-Length: 5', 'Transfer-Encoding: chunked')}0\r\n\r\n`,
    differs: 'node refuses what smuggles requests',
  },
  { name: 'two lengths', bytes: `${request('POST /version', 'Content-Length: 5', 'Content-Length: 6')}hello` },
  { name: 'a length that is none', bytes: request('POST /version', 'Content-Length: x') },
  { name: 'an unknown transfer coding', bytes: request('POST /version', 'Transfer-Encoding: tea') },
  { name: 'a header without a colon', bytes: request('GET /version', 'nonsense') },
  {
    name: 'a header name with a blank',
    bytes: request('GET /version', 'a b: c'),
    differs: 'node does not tell what was wrong',
  },
  {
    name: 'a folded header',
    bytes: request('GET /version', 'a: b', ' c'),
    differs: 'node refuses what RFC 9112 has abolished',
  },
  { name: 'a header value with a control character', bytes: request('GET /version', 'a: b\u0001c') },
  { name: 'HTTP/1.2', bytes: 'GET /version HTTP/1.2\r\nHost: test\r\n\r\n', differs: 'node knows 1.0 and 1.1' },
  { name: 'HTTP/3.0', bytes: 'GET /version HTTP/3.0\r\nHost: test\r\n\r\n' },
];

const scratch = scratchFolder('http');
const ports: Record<'etcd' | 'keelson', { client: number; metrics: number; peer: number }> = {
  etcd: { client: 0, metrics: 0, peer: 0 },
  keelson: { client: 0, metrics: 0, peer: 0 },
};
const programs: Program[] = [];

async function start(name: 'etcd' | 'keelson'): Promise<void> {
  const [client, peer, metrics] = (await freePorts(3)) as [number, number, number];
  ports[name] = { client, peer, metrics };
  const url = (port: number): string => `http://127.0.0.1:${port}`;
  const program = new Program({
    name,
    file: serverFile(name),
    args: [
      '--name=m1',
      `--data-dir=${join(scratch.folder, `${name}-data`)}`,
      `--listen-client-urls=${url(client)}`,
      '--advertise-client-urls=http://127.0.0.1:2379',
      `--listen-peer-urls=${url(peer)}`,
      '--initial-advertise-peer-urls=http://127.0.0.1:2380',
      '--initial-cluster=m1=http://127.0.0.1:2380',
      `--listen-metrics-urls=${url(metrics)}`,
    ],
    folder: scratch.folder,
  });
  programs.push(program);
  await program.says(name === 'etcd' ? '"updated storage version"' : undefined);
}

before(async () => {
  await start('etcd');
  await start('keelson');
});
after(async () => {
  for (const program of programs) await program.stop('SIGKILL');
  scratch.remove();
});

async function ask(
  name: 'etcd' | 'keelson',
  listener: 'client' | 'metrics' | 'peer',
  bytes: string,
): Promise<Exchange> {
  const { text, closed } = await exchange(ports[name][listener], bytes);
  const heads = [...bytes.matchAll(/(?:^|\r\n\r\n|hello)(\w+) \S+ HTTP\/1/g)].map(([, method]) => method === 'HEAD');
  const answers = parse(text, heads);
  // Go lingers for half a second behind an answer that says so.
  return { answers, closed: closed || answers.at(-1)?.includes('| connection: close |') === true };
}

describe('HTTP/1 on the client port', () => {
  for (const { name, bytes, differs } of cases) {
    it(differs === undefined ? name : `${name}: differs, ${differs}`, async () => {
      const [theirs, ours] = await Promise.all([ask('etcd', 'client', bytes), ask('keelson', 'client', bytes)]);
      if (differs === undefined) assert.deepEqual(ours, theirs);
      else assert.notDeepEqual(ours, theirs, 'it does not differ any more: take the reason away');
    });
  }
});

describe('HTTP/1 on the other ports', () => {
  const targets = [
    '/health',
    '/version',
    '/metrics',
    '/livez',
    '/readyz?verbose',
    '/members',
    '/nope',
    '/',
    '/debug/vars',
    '/health/',
  ];
  for (const listener of ['metrics', 'peer'] as const) {
    for (const method of ['GET', 'POST', 'HEAD']) {
      it(`${method} on the ${listener} port`, async () => {
        for (const target of targets) {
          const bytes = request(`${method} ${target}`);
          const [theirs, ours] = await Promise.all([ask('etcd', listener, bytes), ask('keelson', listener, bytes)]);
          assert.deepEqual(ours, theirs, target);
        }
      });
    }
  }
});
