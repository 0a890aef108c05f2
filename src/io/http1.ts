// HTTP/1.1 by node:http for connections that somebody else accepted: the listener looks at a connection's first bytes and gives
// those that are not HTTP/2 to accept(). The handler gets whole requests and returns whole answers; bodies are bounded. Not
// HTTP/2, not gRPC, and no routing.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { http1HeaderBytesMax, http1HeadersTimeoutMs, http1IdleTimeoutMs } from '../connection-limits.ts';
import { PeerExchange } from './peer-exchange.ts';

export interface Http1Request {
  readonly method: string;
  readonly target: string;
  readonly host: string;
  readonly origin: string;
  readonly secure: boolean;
  /** Lower-case names; repeated headers are joined as node does. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

export interface Http1Response {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Buffer;
  /** The connection ends behind it. */
  readonly closes?: boolean;
}

export type Http1Handler = (request: Http1Request) => Http1Response | Promise<Http1Response>;

export interface Http1Options {
  readonly handler: Http1Handler;
  /** A request with a longer body is answered 413 and its connection ended. */
  readonly bodyBytesMax: number;
  /** A handler threw: a bug, answered with 500. */
  readonly onError: (error: unknown) => void;
  /** Takes requests for /raft and below before their body is read: other members'. */
  readonly onPeerExchange?: (exchange: PeerExchange) => void;
  /** A connection on which nothing comes or goes for so long, but while a request is being handled, is closed. http1IdleTimeoutMs when left out. */
  readonly silenceMs?: number;
}

/** How a connection stands. */
interface Connection {
  /** Requests whose answers are not out yet. One that did not come whole when the parser failed will have none. */
  readonly open: Set<IncomingMessage>;
  /** What is to be said behind the last answer, before the connection ends. */
  lastWords: string | null;
}

type Refusal = readonly [status: string, text: string];

/** What of the parser's errors has a status of its own in Go's server; everything else is a 400. */
const refusals: ReadonlyMap<string, Refusal> = new Map([
  ['HPE_INVALID_TRANSFER_ENCODING', ['501 Not Implemented', 'Unsupported transfer encoding']],
  ['HPE_HEADER_OVERFLOW', ['431 Request Header Fields Too Large', '431 Request Header Fields Too Large']],
]);
const badRequest: Refusal = ['400 Bad Request', '400 Bad Request'];
/** To CONNECT. */
const noTunnel: Refusal = ['404 Not Found', '404 page not found\n'];

const peerTarget = /^\/raft(?:[/?]|$)/;

/** The characters that Go takes in a Host header. */
const hostPattern = /^[0-9a-zA-Z!$%&'()*+,\-.:;=[\]_~]*$/;

export class Http1Server {
  readonly #server: Server;
  readonly #options: Http1Options;
  readonly #connections: Map<Socket, Connection> = new Map();
  readonly #bodyTimeoutMs: number;

  constructor(options: Http1Options) {
    this.#options = options;
    // The Host header is looked at here, for Go's words.
    const parsing = { maxHeaderSize: http1HeaderBytesMax, requireHostHeader: false };
    this.#server = createServer(parsing, (request, response) => {
      void this.#answer(request, response, true);
    });
    this.#server.headersTimeout = http1HeadersTimeoutMs;
    // A snapshot takes as long as it takes: with peers, the time of other bodies is limited where they are read.
    const hasPeers = options.onPeerExchange !== undefined;
    this.#server.requestTimeout = hasPeers ? 0 : http1HeadersTimeoutMs;
    this.#bodyTimeoutMs = hasPeers ? http1HeadersTimeoutMs : 0;
    this.#server.keepAliveTimeout = options.silenceMs ?? http1IdleTimeoutMs;
    this.#server.timeout = options.silenceMs ?? http1IdleTimeoutMs;
    // It never listens itself, and only what listens looks after the times of headers and bodies.
    this.#server.emit('listening');
    // As Go where no handler reads: the answer comes instead of the 100, and the body never.
    this.#server.on('checkContinue', (request, response) => void this.#answer(request, response, false));
    this.#server.on('checkExpectation', (request, response) => {
      send(response, { status: 417, headers: {}, body: '', closes: true }, request.method ?? '');
    });
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      // Bytes behind a request that asked to close: its answer is the end.
      if (error.code === 'HPE_CLOSED_CONNECTION') return;
      this.#refuse(socket as Socket, refusals.get(error.code ?? '') ?? badRequest);
    });
    // Without a listener the connection would be closed without a word.
    this.#server.on('connect', (_request, socket) => this.#refuse(socket as Socket, noTunnel));
  }

  /** Takes a connection over. `head` are bytes that were read from it already. */
  accept(socket: Socket, head?: Buffer): void {
    this.#connections.set(socket, { open: new Set(), lastWords: null });
    socket.once('close', () => this.#connections.delete(socket));
    if (head !== undefined && head.length > 0) socket.unshift(head);
    this.#server.emit('connection', socket);
    // Whoever handed it over had paused it, and a listener for data does not undo that.
    socket.resume();
  }

  /** What cannot be answered as a request, behind the answers to what could. */
  #refuse(socket: Socket, [status, text]: Refusal): void {
    const words = `HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n${text}`;
    const connection = this.#connections.get(socket);
    if (connection === undefined || !socket.writable) {
      socket.destroy();
      return;
    }
    connection.lastWords ??= words;
    endIfAnswered(socket, connection);
  }

  /** Ends idle connections now and busy ones after their answer; after `timeoutMs` all. */
  close(timeoutMs: number): Promise<void> {
    this.#server.closeIdleConnections();
    this.#server.keepAliveTimeout = 1;
    if (this.#connections.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        for (const socket of this.#connections.keys()) socket.destroy();
        resolve();
      }, timeoutMs);
      const poll = (): void => {
        if (this.#connections.size > 0) return;
        clearTimeout(timer);
        resolve();
      };
      for (const socket of this.#connections.keys()) socket.once('close', () => setImmediate(poll));
      this.#server.closeIdleConnections();
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse, readsBody: boolean): Promise<void> {
    const method = request.method ?? '';
    this.#note(request, response);
    if (!readsBody) response.setHeader('Connection', 'close');
    try {
      const hostError = checkHost(request);
      if (hostError !== null) return sendHostError(response, hostError);
      if (this.#options.onPeerExchange !== undefined && peerTarget.test(request.url ?? '')) {
        if (!readsBody) response.writeContinue();
        // From here on the exchange looks after its own silence: a snapshot may wait for our disk.
        request.socket.setTimeout(0);
        this.#options.onPeerExchange(new PeerExchange(request, response));
        return;
      }
      const body = readsBody ? await readBody(request, this.#options.bodyBytesMax, this.#bodyTimeoutMs) : noBody;
      if (body === null) return send(response, bodyTooLarge, method);
      // Until the answer the silence is ours.
      request.socket.setTimeout(0);
      const answer = await this.#options.handler({
        method,
        target: request.url ?? '/',
        host: request.headers.host ?? '',
        origin: request.headers['origin'] ?? '',
        secure: request.socket instanceof TLSSocket,
        headers: request.headers,
        body,
      });
      send(response, answer, method);
    } catch (error) {
      if (request.destroyed && !response.headersSent && request.errored !== null) return;
      this.#options.onError(error);
      if (!response.headersSent) send(response, internalError, method);
    }
  }

  #note(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    connection.open.add(request);
    response.once('close', () => {
      connection.open.delete(request);
      endIfAnswered(socket, connection);
    });
  }
}

function endIfAnswered(socket: Socket, { open, lastWords }: Connection): void {
  if (lastWords === null || !socket.writable) return;
  for (const request of open) if (request.complete) return;
  socket.end(lastWords);
}

/** What Go says to the request's Host header, or null when it is good. */
function checkHost({ rawHeaders, headers, httpVersionMinor }: IncomingMessage): string | null {
  const count = rawHeaders.filter((name, at) => at % 2 === 0 && name.toLowerCase() === 'host').length;
  if (count > 1) return '400 Bad Request';
  if (count === 0) return httpVersionMinor === 0 ? null : '400 Bad Request: missing required Host header';
  return hostPattern.test(headers.host ?? '') ? null : '400 Bad Request: malformed Host header';
}

function sendHostError(response: ServerResponse, error: string): void {
  response.statusMessage = error.slice('400 '.length);
  send(response, { status: 400, headers: plainText, body: error, closes: true }, '');
}

const plainText = { 'Content-Type': 'text/plain; charset=utf-8' } as const;
const bodyTooLarge: Http1Response = { status: 413, headers: plainText, body: 'request body too large\n', closes: true };
const internalError: Http1Response = { status: 500, headers: plainText, body: 'Internal Server Error\n', closes: true };

const noBody: Buffer = Buffer.alloc(0);

/** The whole body, or null when it is longer than the bound. A timeout of 0 is the server's own. */
async function readBody(request: IncomingMessage, bytesMax: number, timeoutMs: number): Promise<Buffer | null> {
  if (Number(request.headers['content-length'] ?? 0) > bytesMax) return null;
  const chunks: Buffer[] = [];
  let bytes = 0;
  const timer = timeoutMs === 0 ? null : setTimeout(() => request.socket.destroy(), timeoutMs);
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > bytesMax) return null;
      chunks.push(chunk);
    }
  } finally {
    if (timer !== null) clearTimeout(timer);
  }
  return chunks.length === 0 ? noBody : Buffer.concat(chunks);
}

function send(response: ServerResponse, answer: Http1Response, method: string): void {
  response.statusCode = answer.status;
  for (const name of Object.keys(answer.headers)) response.setHeader(name, answer.headers[name]!);
  if (answer.closes === true) response.setHeader('Connection', 'close');
  response.setHeader('Content-Length', Buffer.byteLength(answer.body));
  // In HTTP/1.1 a connection stays open without a word about it, and Go's server says none.
  const isSilent = !response.hasHeader('Connection') && response.shouldKeepAlive && response.req.httpVersionMinor === 1;
  if (isSilent) response.removeHeader('Connection');
  response.end(method === 'HEAD' ? undefined : answer.body);
}
