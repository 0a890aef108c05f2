// A small server over the HTTP/2 and gRPC engine, for its tests, h2spec and bench/echo.ts: it echoes messages by every kind
// of method, and answers HTTP on the same port. Run alone: node src/testing/echo-server.ts --listen 127.0.0.1:2390

import { createServer } from 'node:http';
import type { Socket } from 'node:net';
import { parseArgs } from 'node:util';
import type { ServerCall } from '../grpc/call.ts';
import type { HttpRequest, HttpRespond } from '../grpc/http-exchange.ts';
import { Router, type StreamHandler } from '../grpc/router.ts';
import { GrpcServer, type GrpcServerOptions, grpcServerOptions } from '../grpc/server.ts';
import { StatusCode } from '../grpc/status.ts';
import { systemClock } from '../io/clock.ts';
import { type ListenAddress, Listener, parseListenAddresses } from '../io/listener.ts';

/** The number in a text that may be anything. */
function numberIn(text: string | undefined): number {
  const number = Number(text);
  return Number.isInteger(number) && number >= 0 && number <= 100_000_000 ? number : 0;
}

/** Sends every message back as it comes, and ends when the client does. */
const echoStream: StreamHandler = {
  open: (): void => {},
  message: (call, message, start, end): void => {
    if (!call.send(message, start, end)) {
      call.pauseReceive();
      call.onDrain = (): void => call.resumeReceive();
    }
  },
  halfClose: (call): void => call.end(),
};

/** Answers when the client has ended: the count of messages and bytes as text. */
const countStream: StreamHandler = {
  open: (call): void => {
    call.context = { messages: 0, bytes: 0 };
  },
  message: (call, _message, start, end): void => {
    const count = call.context as { messages: number; bytes: number };
    count.messages += 1;
    count.bytes += end - start;
  },
  halfClose: (call): void => {
    const count = call.context as { messages: number; bytes: number };
    const text = Buffer.from(`${count.messages} ${count.bytes}`);
    call.respond(text, 0, text.length);
  },
};

/** The request is text, "messages bytes": that many messages of that size, sent as fast as the client takes them. */
const manyStream: StreamHandler = {
  open: (): void => {},
  message: (call, message, start, end): void => {
    const [messages, bytes] = message.toString('latin1', start, end).split(' ');
    const body = Buffer.alloc(numberIn(bytes), 'x');
    let left = numberIn(messages);
    const more = (): void => {
      while (left > 0 && !call.ended) {
        left -= 1;
        if (!call.sendParts([body]) && left > 0) return;
      }
      call.end();
    };
    call.onDrain = more;
    more();
  },
  halfClose: (): void => {},
};

function late(call: ServerCall, message: Buffer, start: number, end: number): void {
  const copy = Buffer.from(message.subarray(start, end));
  setImmediate(() => call.respond(copy, 0, copy.length));
}

export function echoRouter(): Router {
  const router = new Router();
  router.unary('echo.Echo', 'Unary', (call, message, start, end) => call.respond(message, start, end));
  router.unary('echo.Echo', 'Late', late);
  router.unary('echo.Echo', 'Never', () => {});
  router.unary('echo.Echo', 'Size', (call, message, start, end) => {
    const bytes = numberIn(message.toString('latin1', start, end));
    call.respond(Buffer.alloc(bytes, 'y'), 0, bytes);
  });
  router.unary('echo.Echo', 'Header', (call, message, start, end) => {
    const name = message.toString('latin1', start, end);
    const value = name.endsWith('-bin') ? call.metadataBytes(name) : Buffer.from(call.metadata(name) ?? '');
    call.respond(value ?? Buffer.alloc(0), 0, value?.length ?? 0);
  });
  router.unary('echo.Echo', 'Fail', (call, message, start, end) => {
    call.fail({ code: StatusCode.failedPrecondition, message: message.toString('utf8', start, end) });
  });
  router.stream('echo.Echo', 'Bidi', 'bidi', echoStream);
  router.stream('echo.Echo', 'Count', 'client', countStream);
  router.stream('echo.Echo', 'Many', 'server', manyStream);
  return router;
}

export function echoHttp(request: HttpRequest, body: Buffer, respond: HttpRespond): void {
  if (request.path === '/none') respond(404, { 'content-type': 'text/plain' }, Buffer.from('none\n'));
  else
    respond(200, { 'content-type': 'text/plain' }, body.length > 0 ? body : Buffer.from(`echo of ${request.path}\n`));
}

export interface EchoServer {
  readonly grpc: GrpcServer;
  readonly addresses: readonly string[];
  /** Of the first address. */
  readonly port: number;
  close(): Promise<void>;
}

export async function startEchoServer(
  addresses: readonly ListenAddress[],
  overrides: Partial<GrpcServerOptions> = {},
): Promise<EchoServer> {
  const grpc = new GrpcServer(
    grpcServerOptions({
      router: echoRouter(),
      clock: systemClock,
      schedule: setImmediate,
      onHttpRequest: echoHttp,
      ...overrides,
    }),
  );
  const http = createServer((request, response) => response.end(`http/1.1 ${request.url}\n`));
  let connections = 0;
  const listener = await Listener.listen({
    addresses,
    http2: (transport, peer) => {
      connections += 1;
      const info = { id: connections, remoteAddress: peer.remote, localAddress: peer.local, tls: null };
      return grpc.accept(transport, info);
    },
    http1: (socket: Socket, firstBytes: Buffer): void => {
      http.emit('connection', socket);
      socket.unshift(firstBytes);
      socket.resume();
    },
    tls: null,
  });
  const ticker = setInterval(() => grpc.tick(), grpc.options.limits.timerTickMs);
  ticker.unref();
  const bound = listener.addresses();
  return {
    grpc,
    addresses: bound,
    port: Number(bound[0]?.split(':').at(-1) ?? 0),
    close: async (): Promise<void> => {
      clearInterval(ticker);
      await listener.close();
      grpc.destroy();
      http.closeAllConnections();
    },
  };
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      listen: { type: 'string', default: '127.0.0.1:2390' },
      'max-concurrent-streams': { type: 'string', default: '4294967295' },
    },
  });
  const addresses = parseListenAddresses(values.listen);
  if (addresses === null) throw new Error(`not an address: ${values.listen}`);
  const server = await startEchoServer(addresses, { concurrentStreamsMax: Number(values['max-concurrent-streams']) });
  console.log(`echo server on ${server.addresses.join(', ')}`);
  process.on('SIGTERM', () => process.exit(0));
  process.on('message', (message) => {
    if (message === 'cpu') process.send?.({ cpu: process.cpuUsage(), memory: process.memoryUsage() });
  });
}
