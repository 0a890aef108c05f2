// The Huffman code of HPACK strings (RFC 7541, 5.2 and appendix B), both directions.
//
// The code is canonical: for each length the symbols take consecutive codes in ascending order, so the 257 lengths are the
// whole table and the codes are computed at load. Decoding walks a state machine four bits at a time: the shortest code has
// five bits, so a nibble completes at most one symbol.
//
//   transition (a number of `machine`, index = state * 16 + nibble)
//   bits 0-8    next state (a node of the code tree; 256 = broken, EOS was met)
//   bit  9      a symbol is complete
//   bits 10-17  that symbol

import { assert } from '../base/assert.ts';

const endOfString = 256;
const symbolCount = 257;

// Lengths in bits of the codes of symbols 0..255 and, last, end of string (appendix B).
const lengths: Uint8Array = Uint8Array.from([
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
  28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6,
  5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23,
  22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22,
  23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26,
  20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27,
  27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27,
  27, 27, 27, 26, 30,
]);
assert(lengths.length === symbolCount, 'a length for each symbol of the Huffman code');

const codes: Uint32Array = new Uint32Array(symbolCount);
const broken = 256;
const machine: Int32Array = new Int32Array(256 * 16);
/** 1 for states at which a string may end: fewer than eight bits, all ones, since the last symbol. */
const mayEnd: Uint8Array = new Uint8Array(257);

function assignCodes(): void {
  let code = 0;
  for (let length = 1; length <= 30; length += 1) {
    for (let symbol = 0; symbol < symbolCount; symbol += 1) {
      if (lengths[symbol] === length) codes[symbol] = code++;
    }
    code *= 2;
  }
}

function buildMachine(): void {
  // Tree: child[node * 2 + bit] is a node (>= 0) or a leaf (-1 - symbol).
  const child = new Int32Array(512);
  let nodes = 1;
  for (let symbol = 0; symbol < symbolCount; symbol += 1) {
    let node = 0;
    for (let bit = lengths[symbol]! - 1; bit >= 0; bit -= 1) {
      const edge = node * 2 + ((codes[symbol]! >>> bit) & 1);
      if (bit === 0) child[edge] = -1 - symbol;
      else {
        if (child[edge] === 0) child[edge] = nodes++;
        node = child[edge]!;
      }
    }
  }
  assert(nodes === 256, 'a full binary tree of 257 leaves has 256 inner nodes');
  for (let state = 0; state < 256; state += 1) {
    for (let nibble = 0; nibble < 16; nibble += 1) machine[state * 16 + nibble] = transition(child, state, nibble);
  }
  for (let node = 0, depth = 0; depth < 8; depth += 1) {
    mayEnd[node] = 1;
    node = child[node * 2 + 1]!;
  }
}

function transition(child: Int32Array, state: number, nibble: number): number {
  let node = state;
  let symbol = -1;
  for (let bit = 3; bit >= 0; bit -= 1) {
    const next = child[node * 2 + ((nibble >>> bit) & 1)]!;
    if (next >= 0) {
      node = next;
      continue;
    }
    if (next === -1 - endOfString) return broken;
    assert(symbol < 0, 'a nibble completes at most one symbol');
    symbol = -1 - next;
    node = 0;
  }
  return symbol < 0 ? node : node | 0x200 | (symbol << 10);
}

assignCodes();
buildMachine();

/**
 * Decodes `input[start, end)` into `out` from 0. Returns the count of bytes written, or -1 when the padding is longer than
 * seven bits or not all ones, or the code of end-of-string occurs (RFC 7541, 5.2: a decoding error).
 * `out` must hold (end - start) * 8 / 5 bytes: five bits are the shortest code.
 */
export function huffmanDecode(input: Buffer, start: number, end: number, out: Buffer): number {
  assert(out.length * 5 >= (end - start) * 8 - 4, 'room for the longest decoding');
  let state = 0;
  let at = 0;
  for (let i = start; i < end; i += 1) {
    const byte = input[i]!;
    let step = machine[state * 16 + (byte >>> 4)]!;
    if (step & 0x200) out[at++] = step >>> 10;
    state = step & 0x1ff;
    if (state === broken) return -1;
    step = machine[state * 16 + (byte & 15)]!;
    if (step & 0x200) out[at++] = step >>> 10;
    state = step & 0x1ff;
    if (state === broken) return -1;
  }
  return mayEnd[state] === 1 ? at : -1;
}

/** Bytes that the code of a latin1 string takes. */
export function huffmanLength(text: string): number {
  let bits = 0;
  for (let i = 0; i < text.length; i += 1) bits += lengths[text.charCodeAt(i) & 0xff]!;
  return (bits + 7) >>> 3;
}

/** Writes the code of a latin1 string, padded with ones, and returns the offset behind it. */
export function huffmanEncode(text: string, out: Buffer, offset: number): number {
  let at = offset;
  let pending = 0; // bits not yet written, fewer than 8
  let pendingBits = 0;
  for (let i = 0; i < text.length; i += 1) {
    const symbol = text.charCodeAt(i) & 0xff;
    let left = lengths[symbol]!;
    const code = codes[symbol]!;
    // In steps that keep every shift below 32 bits: a code has up to 30.
    while (left > 0) {
      const take = Math.min(left, 8 - pendingBits);
      pending = (pending << take) | ((code >>> (left - take)) & ((1 << take) - 1));
      pendingBits += take;
      left -= take;
      if (pendingBits === 8) {
        out[at++] = pending;
        pending = 0;
        pendingBits = 0;
      }
    }
  }
  if (pendingBits > 0) out[at++] = (pending << (8 - pendingBits)) | (0xff >>> pendingBits);
  return at;
}
