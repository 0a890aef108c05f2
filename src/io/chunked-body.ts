// The chunked transfer coding of HTTP/1.1 (RFC 9112 §7.1), incremental: the bytes of raft's streams come out of it as they arrive,
// in slices of the socket's own chunks. By hand because a stream is read on the hot path of every commit.

type Place = 'size' | 'extension' | 'data' | 'data-cr' | 'data-lf' | 'trailer' | 'done' | 'broken';

/** A chunk's size in hexadecimal: more digits than any sender needs. */
const sizeDigitsMax = 12;
/** After the last chunk; etcd sends none. */
const trailerBytesMax = 4096;

export class ChunkedBody {
  readonly #visit: (bytes: Buffer) => void;
  #place: Place = 'size';
  /** Of the chunk: what its size line said so far, then what is still to come. */
  #bytesLeft = 0;
  #digits = 0;
  #trailerBytes = 0;
  #trailerLineBytes = 0;

  /** `visit` gets the slices of the body; it may keep them. */
  constructor(visit: (bytes: Buffer) => void) {
    this.#visit = visit;
  }

  /** The last chunk and its trailer came. */
  get isDone(): boolean {
    return this.#place === 'done';
  }

  /** False: this is no chunked body, or more came behind its end. Hot. */
  push(bytes: Buffer): boolean {
    let at = 0;
    while (at < bytes.length) {
      if (this.#place === 'data') {
        const end = Math.min(bytes.length, at + this.#bytesLeft);
        this.#bytesLeft -= end - at;
        if (this.#bytesLeft === 0) this.#place = 'data-cr';
        this.#visit(at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end));
        at = end;
      } else {
        this.#place = this.#step(bytes[at]!);
        if (this.#place === 'broken') return false;
        at++;
      }
    }
    return true;
  }

  #step(byte: number): Place {
    switch (this.#place) {
      case 'size':
        return this.#size(byte);
      case 'extension':
        return byte === 10 ? this.#begin() : 'extension';
      case 'data-cr':
        return byte === 13 ? 'data-lf' : 'broken';
      case 'data-lf':
        return byte === 10 ? 'size' : 'broken';
      case 'trailer':
        return this.#trailer(byte);
      default:
        return 'broken';
    }
  }

  #size(byte: number): Place {
    const digit = digitOf(byte);
    if (digit >= 0) {
      this.#digits++;
      this.#bytesLeft = this.#bytesLeft * 16 + digit;
      return this.#digits <= sizeDigitsMax ? 'size' : 'broken';
    }
    if (this.#digits === 0) return 'broken';
    if (byte === 10) return this.#begin();
    return byte === 13 || byte === 0x3b || byte === 32 || byte === 9 ? 'extension' : 'broken';
  }

  /** Behind a size line. */
  #begin(): Place {
    this.#digits = 0;
    return this.#bytesLeft === 0 ? 'trailer' : 'data';
  }

  #trailer(byte: number): Place {
    this.#trailerBytes++;
    if (this.#trailerBytes > trailerBytesMax) return 'broken';
    if (byte === 13) return 'trailer';
    if (byte !== 10) {
      this.#trailerLineBytes++;
      return 'trailer';
    }
    const isEmptyLine = this.#trailerLineBytes === 0;
    this.#trailerLineBytes = 0;
    return isEmptyLine ? 'done' : 'trailer';
  }
}

function digitOf(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : -1;
}
