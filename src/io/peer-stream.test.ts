// Goal: a stream's answer is told apart from refusals and from what is no HTTP, however it is cut. Method: servers that write bytes,
// one by one or at once.

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { describe, it } from 'node:test';
import { peerHeadBytesMax, peerRefusalBytesMax } from '../cluster-limits.ts';
import { PeerDialer } from './peer-dialer.ts';
import { PeerStream } from './peer-stream.ts';

/** What a stream tells of an answer, as lines. */
async function told(answer: string, oneByOne: boolean): Promise<string[]> {
  const lines: string[] = [];
  let request = '';
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      request += chunk;
      if (!request.endsWith('\r\n\r\n')) return;
      if (!oneByOne) {
        socket.end(answer, 'latin1');
        return;
      }
      socket.setNoDelay(true);
      const next = (at: number): void => {
        if (at === answer.length) socket.end();
        else socket.write(answer[at]!, 'latin1', () => setImmediate(() => next(at + 1)));
      };
      next(0);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  let data = '';
  await new Promise<void>((resolve) => {
    PeerStream.open(
      new PeerDialer(1000),
      `http://127.0.0.1:${port}`,
      '/raft/stream/message/1',
      { 'X-A': 'b' },
      {
        opened: (headers) => lines.push(`opened ${headers.get('x-b')}`),
        refused: (status, headers, body) => {
          lines.push(`refused ${status} ${headers.get('x-b')} ${body}`);
          resolve();
        },
        data: (bytes) => {
          data += bytes.toString('latin1');
        },
        closed: (error) => {
          lines.push(`data ${data}`, `closed ${error?.message ?? ''}`);
          resolve();
        },
      },
    );
  });
  server.close();
  assert.equal(request, `GET /raft/stream/message/1 HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nX-A: b\r\n\r\n`);
  return lines;
}

describe('peer stream', () => {
  const rows: readonly (readonly [answer: string, lines: readonly string[]])[] = [
    [
      'HTTP/1.1 200 OK\r\nX-B: c\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n',
      ['opened c', 'data abcde', 'closed '],
    ],
    [
      'HTTP/1.1 200 OK\r\nX-B: c\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\n',
      ['opened c', 'data abc', 'closed unexpected EOF'],
    ],
    [
      'HTTP/1.1 200 OK\r\nX-B: c\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n',
      ['opened c', 'data abc', 'closed malformed chunked encoding'],
    ],
    ['HTTP/1.0 200 OK\r\nX-B: c\r\n\r\nabc', ['opened c', 'data abc', 'closed unexpected EOF']],
    ['HTTP/1.1 410 Gone\r\nX-B: c\r\nX-B: d\r\nContent-Length: 5\r\n\r\ngone\n', ['refused 410 c gone\n']],
    ['HTTP/1.1 412 \r\nX-B: c\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n', ['refused 412 c no']],
    ['HTTP/1.1 404 Not Found\r\nX-B: c\r\nContent-Length: 9\r\n\r\ngone\n', ['data ', 'closed unexpected EOF']],
    ['SSH-2.0\r\n\r\n', ['data ', 'closed malformed HTTP response']],
    ['HTTP/1.1 200 OK\r\nX-B', ['data ', 'closed unexpected EOF']],
    ['', ['data ', 'closed unexpected EOF']],
  ];
  it('reads answers, at once or byte by byte', async () => {
    for (const [answer, lines] of rows) {
      for (const oneByOne of [false, true]) assert.deepEqual(await told(answer, oneByOne), lines, answer);
    }
  });

  it('bounds heads and refusals', async () => {
    const long = `HTTP/1.1 200 OK\r\nX-B: ${'c'.repeat(peerHeadBytesMax)}`;
    assert.deepEqual(await told(long, false), ['data ', 'closed malformed HTTP response: its head is too long']);
    const chatty = `HTTP/1.1 500 X\r\nContent-Length: 99999\r\n\r\n${'c'.repeat(peerRefusalBytesMax + 1)}`;
    assert.deepEqual(await told(chatty, false), ['data ', 'closed an answer too long for a refusal']);
  });
});
