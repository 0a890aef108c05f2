// A POST to another member whose body is made while it goes out: a snapshot's database. Back-pressure both ways: write() says when
// to pause, `drained` when to go on.

import { type Agent, type ClientRequest, request as httpRequest } from 'node:http';
import { peerRefusalBytesMax, snapshotAnswerTimeoutMs, snapshotStallTimeoutMs } from '../cluster-limits.ts';
import { type PeerAddress, parsePeerUrl } from './peer-address.ts';
import { goNetError, type PeerDialer } from './peer-dialer.ts';

/** etcd's: how long the answer's body may take behind its head. */
const answerBodyTimeoutMs = 5000;

export interface PeerUploadEvents {
  /** The pause that write() asked for is over. */
  drained(): void;
  /** Once, in a later turn. */
  done(
    error: Error | null,
    status: number,
    headers: Readonly<Record<string, string | string[] | undefined>>,
    body: string,
  ): void;
}

export class PeerUpload {
  readonly #events: PeerUploadEvents;
  #agent: Agent | null = null;
  #http: ClientRequest | null = null;
  #address: PeerAddress | null = null;
  #timer: NodeJS.Timeout | null = null;
  #isOver = false;

  private constructor(events: PeerUploadEvents) {
    this.#events = events;
  }

  static open(
    dialer: PeerDialer,
    url: string,
    path: string,
    headers: Readonly<Record<string, string>>,
    events: PeerUploadEvents,
  ): PeerUpload {
    const upload = new PeerUpload(events);
    const address = parsePeerUrl(url);
    if (address === null) {
      setImmediate(() => upload.fail(new Error(`no peer URL: ${url}`)));
      return upload;
    }
    upload.#start(dialer, address, path, headers);
    return upload;
  }

  #start(dialer: PeerDialer, address: PeerAddress, path: string, headers: Readonly<Record<string, string>>): void {
    this.#address = address;
    this.#agent = dialer.agent(address, false);
    const http = httpRequest({
      agent: this.#agent,
      method: 'POST',
      path,
      headers: { Host: address.authority, ...headers, 'Transfer-Encoding': 'chunked' },
    });
    this.#http = http;
    http.on('error', (error) => this.fail(error));
    http.on('drain', () => {
      if (this.#isOver) return;
      this.#unlimit();
      this.#events.drained();
    });
    http.on('response', (response) => {
      this.#limit(answerBodyTimeoutMs, 'http: read on closed response body');
      let body = '';
      response.on('data', (chunk: Buffer) => {
        body += chunk.toString('latin1');
        if (body.length > peerRefusalBytesMax) this.fail(new Error('an answer too long'));
      });
      response.on('error', (error) => this.fail(error));
      response.on('end', () => {
        if (!this.#end()) return;
        // An answer before the whole body was sent is a refusal: the rest is not sent.
        http.destroy();
        this.#events.done(null, response.statusCode ?? 0, response.headers, body);
      });
    });
  }

  /** False: no more before drained(). The bytes may not change any more. */
  write(bytes: Buffer): boolean {
    if (this.#isOver || this.#http === null) return true;
    const goesOn = this.#http.write(bytes);
    // How long the body takes to make is its own matter.
    if (!goesOn) this.#limit(snapshotStallTimeoutMs, 'the other end takes nothing');
    return goesOn;
  }

  /** The body is complete: now for the answer. */
  end(): void {
    if (this.#isOver || this.#http === null) return;
    this.#http.end();
    this.#limit(snapshotAnswerTimeoutMs, 'no answer');
  }

  /** Breaks it off; done() tells the error. */
  fail(error: Error): void {
    if (!this.#end()) return;
    this.#http?.destroy();
    this.#events.done(this.#address === null ? error : goNetError(error, this.#address), 0, {}, '');
  }

  #limit(timeoutMs: number, reason: string): void {
    if (this.#isOver) return;
    this.#unlimit();
    this.#timer = setTimeout(() => this.fail(new Error(reason)), timeoutMs);
  }

  #end(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    this.#unlimit();
    this.#agent?.destroy();
    return true;
  }

  #unlimit(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
