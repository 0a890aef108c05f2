// HTTP/1.1 by node:http for connections that somebody else accepted: the listener looks at a connection's first bytes and gives
// those that are not HTTP/2 to accept(). The handler gets whole requests and returns whole answers; bodies are bounded. Not
// HTTP/2, not gRPC, and no routing.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { http1HeaderBytesMax, http1HeadersTimeoutMs, http1IdleTimeoutMs } from '../limits.ts';

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
}

export type Http1Handler = (request: Http1Request) => Http1Response | Promise<Http1Response>;

export interface Http1Options {
  readonly handler: Http1Handler;
  /** A request with a longer body is answered 413 and its connection ended. */
  readonly bodyBytesMax: number;
  /** A handler threw: a bug, answered with 500. */
  readonly onError: (error: unknown) => void;
}

export class Http1Server {
  readonly #server: Server;
  readonly #options: Http1Options;
  readonly #sockets: Set<Socket> = new Set();

  constructor(options: Http1Options) {
    this.#options = options;
    this.#server = createServer({ maxHeaderSize: http1HeaderBytesMax }, (request, response) => {
      void this.#answer(request, response);
    });
    this.#server.headersTimeout = http1HeadersTimeoutMs;
    this.#server.requestTimeout = http1HeadersTimeoutMs;
    this.#server.keepAliveTimeout = http1IdleTimeoutMs;
    this.#server.on('clientError', (_error, socket) => {
      // Go's words for what its parser refuses.
      if (socket.writable)
        socket.end(
          'HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request',
        );
      else socket.destroy();
    });
  }

  /** Takes a connection over. `head` are bytes that were read from it already. */
  accept(socket: Socket, head?: Buffer): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    if (head !== undefined && head.length > 0) socket.unshift(head);
    this.#server.emit('connection', socket);
    // Whoever handed it over had paused it, and a listener for data does not undo that.
    socket.resume();
  }

  /** Ends idle connections now and busy ones after their answer; after `timeoutMs` all. */
  close(timeoutMs: number): Promise<void> {
    this.#server.closeIdleConnections();
    this.#server.keepAliveTimeout = 1;
    if (this.#sockets.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        for (const socket of this.#sockets) socket.destroy();
        resolve();
      }, timeoutMs);
      const poll = (): void => {
        if (this.#sockets.size > 0) return;
        clearTimeout(timer);
        resolve();
      };
      for (const socket of this.#sockets) socket.once('close', () => setImmediate(poll));
      this.#server.closeIdleConnections();
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const body = await readBody(request, this.#options.bodyBytesMax);
      if (body === null) return send(response, bodyTooLarge, request.method ?? '');
      const answer = await this.#options.handler({
        method: request.method ?? '',
        target: request.url ?? '/',
        host: request.headers.host ?? '',
        origin: request.headers['origin'] ?? '',
        secure: request.socket instanceof TLSSocket,
        headers: request.headers,
        body,
      });
      send(response, answer, request.method ?? '');
    } catch (error) {
      if (request.destroyed && !response.headersSent && request.errored !== null) return;
      this.#options.onError(error);
      if (!response.headersSent) send(response, internalError, request.method ?? '');
    }
  }
}

const bodyTooLarge: Http1Response = {
  status: 413,
  headers: { 'Content-Type': 'text/plain; charset=utf-8', Connection: 'close' },
  body: 'request body too large\n',
};
const internalError: Http1Response = {
  status: 500,
  headers: { 'Content-Type': 'text/plain; charset=utf-8', Connection: 'close' },
  body: 'Internal Server Error\n',
};

const noBody: Buffer = Buffer.alloc(0);

/** The whole body, or null when it is longer than the bound. */
async function readBody(request: IncomingMessage, bytesMax: number): Promise<Buffer | null> {
  if (Number(request.headers['content-length'] ?? 0) > bytesMax) return null;
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bytesMax) return null;
    chunks.push(chunk);
  }
  return chunks.length === 0 ? noBody : Buffer.concat(chunks);
}

function send(response: ServerResponse, answer: Http1Response, method: string): void {
  response.statusCode = answer.status;
  for (const name of Object.keys(answer.headers)) response.setHeader(name, answer.headers[name]!);
  response.setHeader('Content-Length', Buffer.byteLength(answer.body));
  response.end(method === 'HEAD' ? undefined : answer.body);
}
