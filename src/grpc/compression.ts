// The gzip message encoding. etcd has it: its tracing exporter imports grpc-go's gzip compressor, which registers itself,
// so etcd takes gzip requests and answers them in gzip. Any other encoding is UNIMPLEMENTED.
// zlib is used synchronously: messages are bounded, and few clients compress.

import { gunzipSync, gzipSync } from 'node:zlib';
import type { Status } from './status.ts';
import { StatusCode } from './status.ts';

/** The message, or why not (grpc-go's texts). */
export function decompress(buffer: Buffer, start: number, end: number, bytesMax: number): Buffer | Status {
  try {
    // One byte more than allowed, so that a bomb stops there and a message of exactly the bound passes.
    const out = gunzipSync(buffer.subarray(start, end), { maxOutputLength: bytesMax + 1 });
    if (out.length <= bytesMax) return out;
  } catch (error) {
    if ((error as { code?: unknown }).code !== 'ERR_BUFFER_TOO_LARGE') {
      const text = error instanceof Error ? error.message : String(error);
      return { code: StatusCode.internal, message: `grpc: failed to decompress the message: gzip: ${text}` };
    }
  }
  const message = `grpc: received message after decompression larger than max ${bytesMax}`;
  return { code: StatusCode.resourceExhausted, message };
}

export function compress(message: Buffer): Buffer {
  return gzipSync(message);
}
