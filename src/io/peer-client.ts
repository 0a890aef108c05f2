// Requests to other members' peer listeners by node:http: whole bodies, bounded answers, one time limit over all. Side requests
// of the member (members, version, leases, hashes), raft's pipeline and probes use it. Not streams (peer-stream.ts) and not
// snapshots (peer-upload.ts).

import { type Agent, type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { peerAgentsMax, peerAnswerBytesMax, peerRequestTimeoutMs } from '../cluster-limits.ts';
import { type PeerAddress, parsePeerUrl } from './peer-address.ts';
import { goNetError, type PeerDialer } from './peer-dialer.ts';
import type { PeerAnswer, PeerRequest, PeerRequests } from './peer-request.ts';

type Done = (error: Error | null, answer: PeerAnswer | null) => void;

export interface PeerClientOptions {
  readonly dialer: PeerDialer;
  /** False: a connection a request, for requests that shall see whether new ones get through. True when left out. */
  readonly keepsConnections?: boolean;
}

export class PeerClient implements PeerRequests {
  readonly #dialer: PeerDialer;
  readonly #keepsConnections: boolean;
  /** By URL; each with its idle connections. */
  readonly #agents: Map<string, { readonly agent: Agent; readonly address: PeerAddress }> = new Map();
  readonly #exchanges: Set<Exchange> = new Set();
  #isStopped = false;

  constructor(options: PeerClientOptions) {
    this.#dialer = options.dialer;
    this.#keepsConnections = options.keepsConnections ?? true;
  }

  request(url: string, request: PeerRequest, done: Done): void {
    const route = this.#isStopped ? null : this.#route(url);
    if (route === null) {
      const reason = this.#isStopped ? 'stopped' : `no peer URL: ${url}`;
      setImmediate(() => done(new Error(reason), null));
      return;
    }
    const exchange = new Exchange(route.agent, route.address, request, (error, answer) => {
      this.#exchanges.delete(exchange);
      done(error, answer);
    });
    this.#exchanges.add(exchange);
    exchange.start();
  }

  /** Requests under way end with an error. */
  stop(): void {
    this.#isStopped = true;
    for (const exchange of [...this.#exchanges]) exchange.fail(new Error('stopped'));
    for (const { agent } of this.#agents.values()) agent.destroy();
    this.#agents.clear();
  }

  #route(url: string): { readonly agent: Agent; readonly address: PeerAddress } | null {
    let route = this.#agents.get(url);
    if (route !== undefined) return route;
    const address = parsePeerUrl(url);
    if (address === null) return null;
    if (this.#agents.size >= peerAgentsMax) this.#forgetOldest();
    route = { agent: this.#dialer.agent(address, this.#keepsConnections), address };
    this.#agents.set(url, route);
    return route;
  }

  /** Its requests under way end well: only idle connections are closed. */
  #forgetOldest(): void {
    const [url, { agent }] = this.#agents.entries().next().value!;
    this.#agents.delete(url);
    for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
  }
}

/** One request and its answer. */
class Exchange {
  readonly #agent: Agent;
  readonly #address: PeerAddress;
  readonly #request: PeerRequest;
  readonly #done: Done;
  #http: ClientRequest | null = null;
  #timer: NodeJS.Timeout | null = null;
  #isRetry = false;
  #isOver = false;

  constructor(agent: Agent, address: PeerAddress, request: PeerRequest, done: Done) {
    this.#agent = agent;
    this.#address = address;
    this.#request = request;
    this.#done = done;
  }

  start(): void {
    const { method, path, headers, body, timeoutMs } = this.#request;
    this.#timer ??= setTimeout(
      () => this.fail(new Error('context deadline exceeded')),
      timeoutMs ?? peerRequestTimeoutMs,
    );
    const length = body === undefined ? undefined : { 'Content-Length': body.length };
    const http = httpRequest({
      agent: this.#agent,
      method,
      path,
      headers: { Host: this.#address.authority, ...headers, ...length },
    });
    this.#http = http;
    http.on('response', (response) => this.#receive(response));
    http.on('error', (error) => {
      if (http !== this.#http) return;
      // A connection that was kept may have been closed at the other end meanwhile. Asked anew, posts too, but for those that do harm
      // when they come twice: the other end may have taken what it did not answer.
      if (!this.#isRetry && this.#request.onlyOnce !== true && http.reusedSocket && isClosed(error)) {
        this.#isRetry = true;
        if (!this.#isOver) this.start();
        return;
      }
      this.fail(goNetError(error, this.#address));
    });
    http.end(body);
  }

  fail(error: Error): void {
    if (this.#end()) {
      this.#http?.destroy();
      this.#done(error, null);
    }
  }

  #receive(response: IncomingMessage): void {
    // The answer has begun: asking again could do twice what was asked.
    this.#isRetry = true;
    const bytesMax = this.#request.answerBytesMax ?? peerAnswerBytesMax;
    const chunks: Buffer[] = [];
    let bytes = 0;
    response.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > bytesMax) this.fail(new Error(`the answer is longer than ${bytesMax} bytes`));
      else chunks.push(chunk);
    });
    response.on('error', (error) => this.fail(goNetError(error, this.#address)));
    response.on('end', () => {
      if (!this.#end()) return;
      this.#done(null, { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) });
    });
  }

  /** Whether this was the end: it comes once. */
  #end(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    return true;
  }
}

function isClosed(error: NodeJS.ErrnoException): boolean {
  return error.code === 'ECONNRESET' || error.code === 'EPIPE';
}
