// Standard input, whatever it is: a file, a pipe whose writer is slow, a terminal, a socket, nothing. Read only when it is asked
// for, so that in a pipeline what is not ours stays for others.

import { reasonOf } from './system-error.ts';

/** Its bytes as they come. A failure names what was read. */
export async function* inputChunks(): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* process.stdin as AsyncIterable<Buffer>;
  } catch (error) {
    throw new Error(`read /dev/stdin: ${reasonOf(error)}`);
  }
}

/** All of it up to the end, or as soon as it is more than `bytesMax`. */
export async function readInput(bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of inputChunks()) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > bytesMax) break;
  }
  return Buffer.concat(chunks, length);
}
