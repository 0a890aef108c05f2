// The percent encoding of the grpc-message header (gRPC over HTTP/2, "Status-Message"): UTF-8, everything outside printable
// ASCII and the percent sign itself as %XX. Decoding is the client's; it is here for tests and our own client.

const printable = /^[ -$&-~]*$/;

/** Encodes a status message, cut to `bytesMax` of its encoded form at a character's edge. */
export function encodeStatusMessage(message: string, bytesMax: number): string {
  if (message.length <= bytesMax && printable.test(message))
    return message.trim() === message ? message : edges(message);
  let out = '';
  for (const character of message) {
    const code = character.charCodeAt(0);
    let next = character;
    if (character.length > 1 || code < 0x20 || code > 0x7e || code === 0x25) {
      next = '';
      for (const byte of Buffer.from(character, 'utf8')) next += `%${hex(byte)}`;
    }
    if (out.length + next.length > bytesMax) break;
    out += next;
  }
  return edges(out);
}

/** Spaces at the ends are encoded too: HTTP/2 lets a peer refuse field values that have them (RFC 9113, 8.2.1). By hand: a
 * regular expression for the last ones takes quadratic time on spaces in the middle, which a client may put there by its path. */
function edges(message: string): string {
  let start = 0;
  while (start < message.length && message.charCodeAt(start) === 0x20) start += 1;
  let end = message.length;
  while (end > start && message.charCodeAt(end - 1) === 0x20) end -= 1;
  return '%20'.repeat(start) + message.slice(start, end) + '%20'.repeat(message.length - end);
}

export function decodeStatusMessage(message: string): string {
  if (!message.includes('%')) return message;
  const bytes: number[] = [];
  for (let i = 0; i < message.length; i += 1) {
    const pair = message.slice(i + 1, i + 3);
    if (message[i] === '%' && /^[0-9a-fA-F]{2}$/.test(pair)) {
      bytes.push(Number.parseInt(pair, 16));
      i += 2;
    } else {
      bytes.push(message.charCodeAt(i) & 0xff);
    }
  }
  return Buffer.from(bytes).toString('utf8');
}

function hex(byte: number): string {
  return byte.toString(16).toUpperCase().padStart(2, '0');
}
