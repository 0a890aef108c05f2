// A ByteWriter of which large parts stay where they are: its content is its own bytes with those parts between them, and goes to a socket
// piece by piece. A part of 1.5 MB that is copied for each of the streams which it goes to costs new memory every time, and the collector
// its work; whoever hands one in keeps it as it is until the content is sent. Not for openMessage(), whose length would lack the parts.
//
//   copy('ab'), splice(X), copy('c')   ->  pieces: 'ab', X, 'c'

import { ByteWriter } from './byte-writer.ts';

export class SplicedWriter extends ByteWriter {
  /** parts[i] stands before the own byte at places[i]. */
  readonly parts: Buffer[] = [];
  private readonly places: number[] = [];
  /** Of all parts. */
  partsBytes = 0;

  override reset(): void {
    super.reset();
    if (this.parts.length === 0) return;
    this.parts.length = 0;
    this.places.length = 0;
    this.partsBytes = 0;
  }

  splice(part: Buffer): void {
    this.parts.push(part);
    this.places.push(this.length);
    this.partsBytes += part.length;
  }

  /** The content from the own byte at `start` on, before which there is no part: own bytes and parts by turns, own ones first and last. */
  pieces(start: number): Buffer[] {
    const pieces: Buffer[] = [];
    let from = start;
    for (let i = 0; i < this.parts.length; i++) {
      const place = this.places[i]!;
      pieces.push(this.bytes.subarray(from, place), this.parts[i]!);
      from = place;
    }
    pieces.push(this.bytes.subarray(from, this.length));
    return pieces;
  }
}
