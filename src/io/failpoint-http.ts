// The HTTP side of base/failpoint.ts, by gofail's contract: GET / lists `name=term` lines, GET /name answers its term, GET
// /name/count how often it was reached, PUT /name sets it (204), PUT /failpoints sets several, DELETE /name switches it off
// (204). Only with GOFAIL_HTTP or GOFAIL_FAILPOINTS in the environment: without them nothing listens and nothing is armed.

import { writeSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  armFailpoints,
  clearFailpoint,
  type FailpointControl,
  failpointStatus,
  listFailpoints,
  setFailpoint,
  setFailpoints,
} from '../base/failpoint.ts';
import { failpointBodyBytesMax } from '../limits.ts';

/** The control of a real process. SIGKILL to ourselves ends every thread before kill() returns; see base/failpoint.ts. */
export const processFailpointControl: FailpointControl = {
  panic(name: string): never {
    try {
      writeSync(2, `panic: failpoint panic: ${name}\n`);
    } catch {
      // A closed or full stderr must not save the process from its panic.
    }
    process.kill(process.pid, 'SIGKILL');
    throw new Error('process survived SIGKILL');
  },
  random: Math.random,
};

/** Armed failpoints of a process: the memory for its workers, and the listener when GOFAIL_HTTP asked for one. */
export interface FailpointSession {
  readonly shared: SharedArrayBuffer;
  readonly server: FailpointServer | null;
}

/** Arms failpoints as the environment asks; null when it does not. Throws when a variable cannot be honoured. */
export async function startFailpoints(
  env: Readonly<Record<string, string | undefined>>,
): Promise<FailpointSession | null> {
  const address = env['GOFAIL_HTTP'] ?? '';
  const initial = env['GOFAIL_FAILPOINTS'] ?? '';
  if (address === '' && initial === '') return null;
  const shared = armFailpoints(processFailpointControl);
  const error = setFailpoints(initial);
  if (error !== null) throw new Error(`GOFAIL_FAILPOINTS: ${error}`);
  return { shared, server: address === '' ? null : await FailpointServer.listen(address) };
}

export class FailpointServer {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Listens on `host:port`. */
  static async listen(address: string): Promise<FailpointServer> {
    const colon = address.lastIndexOf(':');
    const port = Number(address.slice(colon + 1));
    if (colon < 0 || !Number.isInteger(port)) throw new Error(`GOFAIL_HTTP: not host:port: ${address}`);
    const host = address.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
    const server = createServer((request, response) => void answer(request, response));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host === '' ? undefined : host, () => {
        server.off('error', reject);
        resolve();
      });
    });
    // It must not keep a process alive that has nothing else to do.
    server.unref();
    return new FailpointServer(server);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

type Answer = readonly [status: number, body: string];

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let [status, body]: Answer = [400, 'malformed request\n'];
  try {
    const input = await readBody(request);
    const key = decodeURIComponent((request.url ?? '/').slice(1));
    [status, body] = input === null ? [400, 'failed ReadAll in PUT\n'] : route(request.method ?? '', key, input);
  } catch {
    // A client that went away, or a malformed path: the 400 above, if it still arrives.
  }
  response.statusCode = status;
  if (status === 405) response.setHeader('Allow', 'DELETE, GET, PUT');
  if (status !== 204) response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  response.end(body);
}

function route(method: string, key: string, body: string): Answer {
  if (method === 'PUT') {
    const error = key.toLowerCase() === 'failpoints' ? setFailpoints(body) : setFailpoint(key, body);
    return error === null ? [204, ''] : [400, `fail to set failpoint: ${error}\n`];
  }
  if (method === 'GET') {
    if (key === '') return [200, listFailpoints()];
    const wantsCount = key.endsWith('/count');
    const status = failpointStatus(wantsCount ? key.slice(0, -'/count'.length) : key);
    if (typeof status === 'string') return [404, `failed to GET: ${status}\n`];
    return [200, wantsCount ? String(status.hits) : `${status.term}\n`];
  }
  if (method === 'DELETE') {
    const error = clearFailpoint(key);
    return error === null ? [204, ''] : [400, `failed to delete failpoint ${error}\n`];
  }
  return [405, 'Method not allowed\n'];
}

async function readBody(request: IncomingMessage): Promise<string | null> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > failpointBodyBytesMax) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
