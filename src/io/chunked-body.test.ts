// Goal: a chunked body comes out whole however the socket cuts it, and what is none is refused. Method: every cut of small bodies.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ChunkedBody } from './chunked-body.ts';

/** The body, whether it ended, or null when it is none. Pushed in pieces of `size`. */
function read(text: string, size: number): { readonly body: string; readonly isDone: boolean } | null {
  const parts: string[] = [];
  const body = new ChunkedBody((bytes) => parts.push(bytes.toString('latin1')));
  const bytes = Buffer.from(text, 'latin1');
  for (let at = 0; at < bytes.length; at += size) {
    if (!body.push(bytes.subarray(at, at + size))) return null;
  }
  return { body: parts.join(''), isDone: body.isDone };
}

describe('chunked body', () => {
  it('reads chunks, extensions and trailers, in any pieces', () => {
    const text = '5\r\nhello\r\n00A;x="y"\r\n, 10 bytes\r\n1 \r\n\n\r\n0\r\nTrailer: t\r\n\r\n';
    for (let size = 1; size <= text.length; size++) {
      assert.deepEqual(read(text, size), { body: 'hello, 10 bytes\n', isDone: true }, `pieces of ${size}`);
    }
    for (let end = 0; end < text.length; end++) assert.equal(read(text.slice(0, end), 7)?.isDone, false);
  });

  it('hands on the socket’s own chunk where it is all payload', () => {
    const seen: Buffer[] = [];
    const body = new ChunkedBody((bytes) => seen.push(bytes));
    assert.ok(body.push(Buffer.from('6\r\n')));
    const chunk = Buffer.from('abcdef');
    assert.ok(body.push(chunk));
    assert.equal(seen[0], chunk);
  });

  it('refuses what is no chunked body', () => {
    for (const text of ['x\r\n', '\r\n', '-1\r\n', '5\r\nhelloX', '5\r\nhello\rX', '1234567890123\r\n', '0\r\n\r\n1']) {
      assert.equal(read(text, 3), null, JSON.stringify(text));
    }
    assert.equal(read(`0\r\n${'t'.repeat(5000)}`, 100), null, 'a trailer without end');
  });
});
