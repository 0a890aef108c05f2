// Other members' peer listeners, for tests of one member: each URL answers each path as the test says; what it does not name is not
// reached.

import type { PeerRequest, PeerRequests } from '../peer/peer-transport.ts';

export interface ScriptedAnswer {
  readonly status?: number;
  readonly body: string;
}

export class ScriptedPeers implements PeerRequests {
  /** By URL and path, as in http://peer/version. */
  readonly answers: Map<string, (request: PeerRequest) => ScriptedAnswer> = new Map();
  readonly asked: string[] = [];

  /** What `url` answers from now on; null: it is not reached. */
  version(url: string, server: string | null): void {
    if (server === null) this.answers.delete(`${url}/version`);
    else
      this.answers.set(`${url}/version`, () => ({
        body: JSON.stringify({ etcdserver: server, etcdcluster: '3.7.0' }),
      }));
  }

  request(url: string, request: PeerRequest, done: Parameters<PeerRequests['request']>[2]): void {
    this.asked.push(`${request.method} ${url}${request.path}`);
    const answer = this.answers.get(`${url}${request.path}`)?.(request);
    setImmediate(() => {
      if (answer === undefined) done(new Error('connection refused'), null);
      else done(null, { status: answer.status ?? 200, headers: {}, body: Buffer.from(answer.body) });
    });
  }
}
