// Goal: parts stand where they were spliced, whatever the own bytes around them do, and a reset forgets them. Method: contents by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SplicedWriter } from './spliced-writer.ts';

function text(out: SplicedWriter, start = 0): string[] {
  return out.pieces(start).map((piece) => piece.toString());
}

test('parts stand between the own bytes, in order, and are not copied', () => {
  const out = new SplicedWriter(4);
  const part = Buffer.from('PART');
  assert.deepEqual(text(out), ['']);
  out.copy(Buffer.from('ab'), 0, 2);
  out.splice(part);
  // Grows: the own bytes move.
  out.copy(Buffer.from('cdefgh'), 0, 6);
  out.splice(part);
  out.splice(Buffer.from('!'));
  assert.deepEqual(text(out), ['ab', 'PART', 'cdefgh', 'PART', '', '!', '']);
  assert.deepEqual(text(out, 1), ['b', 'PART', 'cdefgh', 'PART', '', '!', '']);
  assert.equal(out.pieces(0)[1], part);
  assert.equal(out.length + out.partsBytes, Buffer.concat(out.pieces(0)).length);
});

test('neither a reset nor a release keeps a part', () => {
  for (const forget of [(out: SplicedWriter) => out.reset(), (out: SplicedWriter) => out.release(1)]) {
    const out = new SplicedWriter(4);
    out.splice(Buffer.from('PART'));
    forget(out);
    out.byte(65);
    assert.deepEqual(text(out), ['A']);
    assert.equal(out.partsBytes, 0);
  }
});
