// A stream that another member sends us: one GET whose answer does not end (etcd's rafthttp). The connection is ours alone, so
// the answer's head is read here and its body's chunks go to the decoder as the socket brings them, without a parser between.

import type { Socket } from 'node:net';
import { peerHeadBytesMax, peerRefusalBytesMax } from '../cluster-limits.ts';
import { ChunkedBody } from './chunked-body.ts';
import { type PeerAddress, parsePeerUrl } from './peer-address.ts';
import { goNetError, type PeerDialer } from './peer-dialer.ts';

export interface PeerStreamEvents {
  /** Status 200: data follows. */
  opened(headers: ReadonlyMap<string, string>): void;
  /** Another status, with its body; the connection is closed. */
  refused(status: number, headers: ReadonlyMap<string, string>, body: string): void;
  /** Bytes of the stream; they may be kept. */
  data(bytes: Buffer): void;
  /** The end, unless it was refused() or destroy(). Null: the other member ended it in order. */
  closed(error: Error | null): void;
}

const endOfHead: Buffer = Buffer.from('\r\n\r\n', 'latin1');

export class PeerStream {
  readonly #events: PeerStreamEvents;
  #socket: Socket | null = null;
  #address: PeerAddress | null = null;
  /** What came of the head; null when it is over. */
  #head: Buffer | null = Buffer.alloc(0);
  #status = 0;
  #headers: ReadonlyMap<string, string> = new Map();
  #chunked: ChunkedBody | null = null;
  #refusal = '';
  #isOver = false;

  private constructor(events: PeerStreamEvents) {
    this.#events = events;
  }

  /** Dials; events come in later turns. Header names as they shall stand on the wire. */
  static open(
    dialer: PeerDialer,
    url: string,
    path: string,
    headers: Readonly<Record<string, string>>,
    events: PeerStreamEvents,
  ): PeerStream {
    const stream = new PeerStream(events);
    const address = parsePeerUrl(url);
    const socket = address === null ? new Error(`no peer URL: ${url}`) : dialer.connect(address);
    if (address === null || socket instanceof Error) {
      setImmediate(() => stream.#end(socket as Error));
      return stream;
    }
    stream.#address = address;
    stream.#socket = socket;
    const lines = Object.keys(headers).map((name) => `${name}: ${headers[name]!}\r\n`);
    socket.write(`GET ${path} HTTP/1.1\r\nHost: ${address.authority}\r\n${lines.join('')}\r\n`, 'latin1');
    socket.on('data', (chunk) => stream.#receive(chunk as Buffer));
    socket.on('error', (error) => stream.#end(goNetError(error, address)));
    socket.on('close', () => stream.#end(new Error('unexpected EOF')));
    socket.on('end', () => stream.#end(new Error('unexpected EOF')));
    return stream;
  }

  /** No events come any more. */
  destroy(): void {
    this.#isOver = true;
    this.#socket?.destroy();
  }

  /** Hot. */
  #receive(chunk: Buffer): void {
    if (this.#isOver) return;
    if (this.#head !== null) {
      this.#receiveHead(chunk);
      return;
    }
    this.#receiveBody(chunk);
  }

  #receiveHead(chunk: Buffer): void {
    const head = Buffer.concat([this.#head!, chunk]);
    const end = head.indexOf(endOfHead);
    this.#head = head;
    if (end < 0) {
      if (head.length > peerHeadBytesMax) this.#end(new Error('malformed HTTP response: its head is too long'));
      return;
    }
    this.#head = null;
    const lines = head.toString('latin1', 0, end).split('\r\n');
    const status = /^HTTP\/1\.[01] ([0-9]{3})(?: |$)/.exec(lines[0]!);
    if (status === null) {
      this.#end(new Error('malformed HTTP response'));
      return;
    }
    this.#status = Number(status[1]);
    this.#headers = parseHeaders(lines);
    if (this.#headers.get('transfer-encoding') === 'chunked') {
      this.#chunked = new ChunkedBody(
        this.#status === 200 ? (bytes) => this.#data(bytes) : (bytes) => this.#refuse(bytes),
      );
    }
    if (this.#status === 200) this.#events.opened(this.#headers);
    const rest = head.subarray(end + endOfHead.length);
    // Even without a byte: the body may be empty.
    if (!this.#isOver) this.#receiveBody(rest);
  }

  #receiveBody(bytes: Buffer): void {
    const chunked = this.#chunked;
    if (chunked === null) {
      if (this.#status === 200) this.#data(bytes);
      else this.#refuse(bytes);
      if (this.#status !== 200 && this.#refusal.length >= Number(this.#headers.get('content-length') ?? 0))
        this.#finish();
      return;
    }
    if (!chunked.push(bytes)) this.#end(new Error('malformed chunked encoding'));
    else if (chunked.isDone) this.#finish();
  }

  #data(bytes: Buffer): void {
    if (!this.#isOver && bytes.length > 0) this.#events.data(bytes);
  }

  #refuse(bytes: Buffer): void {
    this.#refusal += bytes.toString('latin1');
    if (this.#refusal.length > peerRefusalBytesMax) this.#end(new Error('an answer too long for a refusal'));
  }

  /** The whole answer came. */
  #finish(): void {
    if (this.#status === 200) {
      this.#end(null);
      return;
    }
    if (this.#isOver) return;
    this.destroy();
    this.#events.refused(this.#status, this.#headers, this.#refusal);
  }

  #end(error: Error | null): void {
    if (this.#isOver) return;
    this.destroy();
    this.#events.closed(error === null || this.#address === null ? error : goNetError(error, this.#address));
  }
}

/** Lower-case names; of a repeated one the first, as Go's Get. */
function parseHeaders(lines: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>();
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i]!;
    const colon = line.indexOf(':');
    if (colon < 0) continue;
    const name = line.slice(0, colon).trim().toLowerCase();
    if (!headers.has(name)) headers.set(name, line.slice(colon + 1).trim());
  }
  return headers;
}
