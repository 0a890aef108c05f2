// A request of another member under /raft and its answer, as http1.ts hands it on before the body is read: what the transport
// needs of node:http, and nothing else. The body is taken piece by piece; the answer is whole or a
// stream.

import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import { settleConnection } from './connection-quota.ts';
import { OutgoingStream } from './outgoing-stream.ts';

/** Where a body goes piece by piece. */
export interface BodySink {
  /** False: wait for resumeBody(). The bytes may be kept. */
  chunk(bytes: Buffer): boolean;
  /** All of it came. */
  end(): void;
  /** The connection broke before that; nothing follows. */
  broken(error: Error): void;
}

/** How long a member that was refused may go on to send its body before the connection is cut: it shall read the answer first. */
const unreadBodyGraceMs = 500;
const looksPerSilence = 4;

export class PeerExchange {
  readonly method: string;
  /** Without a query. */
  readonly path: string;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  #isAnswered = false;

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.#request = request;
    this.#response = response;
    this.method = request.method ?? '';
    const target = request.url ?? '/';
    const query = target.indexOf('?');
    this.path = query < 0 ? target : target.slice(0, query);
  }

  /** '' when it is not there. */
  header(name: string): string {
    const value = this.#request.headers[name.toLowerCase()];
    return typeof value === 'string' ? value : (value?.[0] ?? '');
  }

  /** The other end's address without its port; '@' where there is none, as Go writes it. */
  get remoteHost(): string {
    return this.#request.socket.remoteAddress ?? '@';
  }

  /** A member of the cluster is behind it: its connection does not make way for others. */
  settle(): void {
    settleConnection(this.#request.socket);
  }

  /** Once. Fine when the connection is gone already. */
  answer(status: number, headers: Readonly<Record<string, string>>, body: string): void {
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    if (!this.#request.complete) {
      this.#answerEarly(status, headers, body);
      return;
    }
    const response = this.#response;
    response.statusCode = status;
    for (const name of Object.keys(headers)) response.setHeader(name, headers[name]!);
    if (status !== 204) response.setHeader('Content-Length', Buffer.byteLength(body));
    response.end(status === 204 ? undefined : body);
  }

  /**
   * While the body still comes. Written past node, which would close the connection at once: the kernel would reset it for the
   * bytes that nobody has read, and the other end might never see the answer.
   */
  #answerEarly(status: number, headers: Readonly<Record<string, string>>, body: string): void {
    const { socket } = this.#request;
    const length = { 'Content-Length': String(Buffer.byteLength(body)), Connection: 'close' };
    const reason = STATUS_CODES[status] ?? '';
    socket.end(`HTTP/1.1 ${status} ${reason}\r\n${headText({ ...headers, ...length })}${body}`, 'latin1');
    this.#request.resume();
    setTimeout(() => socket.destroy(), unreadBodyGraceMs).unref();
  }

  /** Answers 200 with a body that does not end. */
  openStream(headers: Readonly<Record<string, string>>): OutgoingStream {
    this.#isAnswered = true;
    const head = headText({ ...headers, 'Transfer-Encoding': 'chunked' });
    return new OutgoingStream(this.#request.socket, `HTTP/1.1 200 OK\r\n${head}`);
  }

  /** The body ends as broken, too, when nothing of it comes for `silenceMs`, or a quarter longer. */
  receiveBody(silenceMs: number, sink: BodySink): void {
    const request = this.#request;
    let isOver = false;
    let silentLooks = 0;
    // Looked at now and then, not set anew with every chunk.
    const timer = setInterval(() => {
      if (request.isPaused() || request.complete) silentLooks = 0;
      else if (silentLooks++ === looksPerSilence) broken(new Error('i/o timeout'));
    }, silenceMs / looksPerSilence);
    const over = (): boolean => {
      const wasOver = isOver;
      isOver = true;
      clearInterval(timer);
      return wasOver;
    };
    const broken = (error: Error): void => {
      if (!over()) sink.broken(error);
    };
    request.on('data', (chunk: Buffer) => {
      silentLooks = 0;
      if (!isOver && !this.#isAnswered && !sink.chunk(chunk)) request.pause();
    });
    request.on('end', () => {
      if (!over()) sink.end();
    });
    request.on('error', () => broken(new Error('unexpected EOF')));
    request.on('close', () => broken(new Error('unexpected EOF')));
  }

  resumeBody(): void {
    this.#request.resume();
  }
}

/** Header lines and the empty line. */
function headText(headers: Readonly<Record<string, string>>): string {
  const lines = Object.keys(headers).map((name) => `${name}: ${headers[name]!}\r\n`);
  return `${lines.join('')}Date: ${new Date().toUTCString()}\r\n\r\n`;
}
