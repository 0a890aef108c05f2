// What stands before every HTTP endpoint of the client listeners, the JSON gateway included (server/embed accessController):
// the guard of plain HTTP against DNS rebinding by --host-whitelist, CORS headers by --cors, and the answer to OPTIONS.
// Metrics listeners do not have it, as in etcd.

import { type AdminRequest, type AdminResponse, errorResponse } from './http-message.ts';

export interface AccessOptions {
  readonly cors: readonly string[];
  readonly hostWhitelist: readonly string[];
}

/** The host of a Host header without its port (Go's httputil.GetHostname). */
export function hostName(host: string): string {
  const bracketed = /^\[([^\]]*)\]:[^:]*$/.exec(host);
  if (bracketed !== null) return bracketed[1]!;
  const colon = host.indexOf(':');
  return colon >= 0 && colon === host.lastIndexOf(':') ? host.slice(0, colon) : host;
}

export class AccessController {
  readonly #origins: ReadonlySet<string>;
  readonly #hosts: ReadonlySet<string>;

  constructor(options: AccessOptions) {
    this.#origins = new Set(options.cors);
    this.#hosts = new Set(options.hostWhitelist);
  }

  /** The answer that ends a request here, or null when it may go on. */
  check(request: AdminRequest): AdminResponse | null {
    const host = hostName(request.host);
    if (!request.secure && !this.#allows(this.#hosts, host)) return errorResponse(421, misdirectedText(host));
    if (request.method !== 'OPTIONS') return null;
    return { status: 200, headers: this.corsHeaders(request.origin), body: '' };
  }

  /** Headers for any answer to a request of this origin that check() let through. */
  corsHeaders(origin: string): Readonly<Record<string, string>> {
    const allowed = this.#allows(this.#origins, '*') ? '*' : this.#allows(this.#origins, origin) ? origin : null;
    if (allowed === null) return {};
    return {
      'Access-Control-Allow-Methods': 'POST, GET, OPTIONS, PUT, DELETE',
      'Access-Control-Allow-Origin': allowed,
      'Access-Control-Allow-Headers': 'accept, content-type, authorization',
    };
  }

  /** An empty list allows everything, as does *. */
  #allows(list: ReadonlySet<string>, item: string): boolean {
    return list.size === 0 || list.has('*') || list.has(item);
  }
}

function misdirectedText(host: string): string {
  return `
The Host header ${JSON.stringify(host)} is not one that this member answers to over plain HTTP.

Either of these helps:
- use TLS, then every Host is accepted;
- add the name to the accepted ones, e.g. --host-whitelist ${JSON.stringify(host)}

The check keeps web pages from reaching a member by DNS rebinding (CVE-2018-5702).
`;
}
