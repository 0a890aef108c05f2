// Names of hosts and services: what the system (its hosts file, its name servers) or a test says that they stand for.

import { lookup, Resolver } from 'node:dns/promises';
import { peerNamesRetryMs, peerNamesWaitMs } from '../cluster-limits.ts';
import type { Clock } from './clock.ts';

export interface ServiceRecord {
  readonly target: string;
  readonly port: number;
  readonly priority: number;
  readonly weight: number;
}

/** Both reject with Go's text. */
export interface Names {
  /** An IP address of a host, the first that there is. */
  address(host: string): Promise<string>;
  /** The SRV records of a name, the most wanted first. */
  services(name: string): Promise<readonly ServiceRecord[]>;
}

/** `servers` ("address:port") instead of the system's, for services alone. */
export function systemNames(servers: readonly string[] = []): Names {
  return {
    address: async (host) => {
      try {
        // As Go prefers it, so that one host is one address wherever it is asked for.
        return (await lookup(host, { order: 'ipv4first' })).address;
      } catch (error) {
        throw lookupError(host, error);
      }
    },
    services: async (name) => {
      const resolver = new Resolver();
      if (servers.length > 0) resolver.setServers(servers);
      try {
        const records = await resolver.resolveSrv(name);
        // As Go: by priority; what is of one priority, by chance, here in the order of the answer.
        return records
          .map(({ name: target, port, priority, weight }) => ({ target, port, priority, weight }))
          .sort((a, b) => a.priority - b.priority);
      } catch (error) {
        throw lookupError(name, error);
      }
    },
  };
}

/** A host and a port, of which `text` is the URL. */
interface Place {
  readonly text: string;
  readonly authority: string;
  readonly host: string;
  readonly port: number;
}

type Tell = (level: 'info' | 'warn', message: string, fields: Readonly<Record<string, string>>) => void;

/**
 * "address:port" of places, or why there is none. Names may come up while they are waited for: all that one such function is asked
 * have peerNamesWaitMs together, from now on, as in etcd.
 */
export function patientResolver(
  names: Names,
  clock: Clock,
  tell: Tell,
): (
  place: Place,
) => Promise<{ readonly ok: true; readonly value: string } | { readonly ok: false; readonly error: string }> {
  const deadlineMs = clock.nowMs() + peerNamesWaitMs;
  return async ({ text, authority, host, port }) => {
    for (;;) {
      const fields = { url: text, host: authority };
      try {
        const address = await names.address(host);
        const value = `${address.includes(':') ? `[${address}]` : address}:${port}`;
        tell('info', 'resolved URL Host', { ...fields, 'resolved-addr': value });
        return { ok: true, value };
      } catch (error) {
        const reason = (error as Error).message;
        const isLast = clock.nowMs() + peerNamesRetryMs >= deadlineMs;
        const message = isLast ? 'failed to resolve URL Host; returning' : 'failed to resolve URL Host';
        tell('warn', message, { ...fields, 'retry-interval': '1s', error: reason });
        if (isLast) return { ok: false, error: reason };
      }
      await new Promise<void>((resolve) => clock.setTimer(peerNamesRetryMs, resolve));
    }
  };
}

function lookupError(name: string, error: unknown): Error {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const reasons: Readonly<Record<string, string>> = {
    ENOTFOUND: 'no such host',
    ENODATA: 'no such host',
    EAI_AGAIN: 'server misbehaving',
    ESERVFAIL: 'server misbehaving',
    EREFUSED: 'server misbehaving',
    ETIMEOUT: 'i/o timeout',
    ECONNREFUSED: 'connection refused',
  };
  return new Error(`lookup ${name}: ${reasons[code] ?? (error as Error).message}`, { cause: error });
}
