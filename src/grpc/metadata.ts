// Binary metadata: a header whose name ends in "-bin" carries base64, with or without padding (gRPC over HTTP/2).

const alphabet = /^[A-Za-z0-9+/]*={0,2}$/;

/** The bytes, or null when it is not base64. */
export function decodeBinaryHeader(value: string): Buffer | null {
  if (!alphabet.test(value)) return null;
  const unpadded = value.replace(/=+$/, '');
  // Padding is all or nothing, and one character alone carries no byte.
  if (unpadded.length !== value.length && value.length % 4 !== 0) return null;
  if (unpadded.length % 4 === 1) return null;
  return Buffer.from(unpadded, 'base64');
}

/** Where Go's decoder stops at a value that decodeBinaryHeader refuses: its error names the byte. */
export function illegalBase64At(value: string): number {
  const illegal = value.search(/[^A-Za-z0-9+/]/);
  return illegal < 0 ? value.length - 1 : illegal;
}
